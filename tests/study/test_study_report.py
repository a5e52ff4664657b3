"""The report: one page that stands alone, a text, figures; also of a study that isn't complete."""

import json
from html.parser import HTMLParser

import pytest

import studies
from tf_largebatch import plots
from tf_largebatch.study import _figures as figures
from tf_largebatch.study import _report as report
from tf_largebatch.study._command import main
from tf_largebatch.study._reading import read
from tf_largebatch.study._report import write_report

VOID = {"img", "meta"}
FIGURES = [
    "accuracy",
    "base_rates",
    "learning_rates",
    "stable_rates",
    "training_curves",
    "trials",
    "updates_to_target",
]


class Reader(HTMLParser):
    """Checks that tags are closed in order; keeps text, images, heads of rows and headings."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.images, self.headings, self.sources = [], "", [], [], []
        self.cells_without_scope = 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.sources += [attributes[name] for name in ("src", "href") if name in attributes]
        self.cells_without_scope += tag == "th" and "scope" not in attributes
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture
def without_figures(monkeypatch):
    """As where matplotlib isn't installed; it's also quicker."""

    def refuse(**_):
        raise ImportError("Plots need matplotlib.")

    monkeypatch.setattr(plots, "figure", refuse)


def page_of(folder):
    write_report(folder)
    return Reader((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_of_a_whole_study_stands_alone(tmp_path):
    studies.whole(tmp_path, ["lamb", "sgd"], batches=(16, 512), seeds=2)
    with open(tmp_path / "results.csv", "a", encoding="utf-8") as file:
        for trial, rate in enumerate((0.003, 0.01)):
            (run,) = studies.runs("lamb", 16, [0.99], "base", trial=trial, learning_rate=rate)
            file.write(",".join(str(run[name]) for name in studies.RESULTS) + "\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    text = write_report(tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Reader(html)
    assert page.headings[:2] == ["Verdict", "Accuracy"]
    assert page.headings[-2:] == ["Rules of the verdict", "How it was run"]
    assert len(page.images) == len(FIGURES)
    assert all(image["alt"] for image in page.images)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "<script" not in html and "http" not in html
    assert page.cells_without_scope == 0
    assert html.count("<table>") == html.count("<caption>") > 5
    assert text == (tmp_path / "table.md").read_text(encoding="utf-8")
    assert text.index("## Verdict") < text.index("## Accuracy") < text.index("## Tuning")
    written = {path.name for path in tmp_path.iterdir()} - set(before)
    assert written == {"report.html", "table.md", *(f"{name}.png" for name in FIGURES)}
    assert all((tmp_path / name).read_bytes() == content for name, content in before.items())


def test_text_of_a_study_is_never_markup(tmp_path, without_figures):
    run = studies.runs("lamb", 16, [0.99], "ablation", variant='<script>"&')
    info = studies.info(machine="<img src=http://x>", recipe="<b>&amp;", seeds=[0])
    page = page_of(studies.write(tmp_path, info, run))
    assert page.images == [] and page.sources == []
    for text in ('<script>"&', "<img src=http://x>", "<b>&amp;"):
        assert text in page.text


def test_without_matplotlib_the_tables_are_there(tmp_path, without_figures):
    page = page_of(studies.whole(tmp_path, ["lamb", "sgd"], batches=(16, 512), seeds=2))
    assert page.headings[:2] == ["Verdict", "Accuracy"]
    assert "Not drawn. Plots need matplotlib." in page.text
    assert "mean ± sample standard deviation" in page.text
    assert not list(tmp_path.glob("*.png"))


def test_a_study_that_is_not_complete_says_what_is_missing(tmp_path, without_figures):
    tuning = {"method": "grid", "trials": 4, "space": {"lamb": {}}, "batch_sizes": [512]}
    lines = [
        *studies.runs("lamb", 16, [0.99, 0.98]),
        *studies.runs("sgd", 16, [0.99], status="failed", value=""),
        *studies.runs("lamb", 512, [0.99], "trial", trial=0),
    ]
    write_report(studies.write(tmp_path, studies.info(tuning=tuning), lines))
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "without a result yet: 10 untuned, 6 tuned, 7 trial." in text
    assert "1/1 failed" in text


def test_one_seed_has_no_spread_and_no_interval(tmp_path, without_figures):
    lines = [
        run
        for name, values in {"lamb": (0.99, 0.98), "sgd": (0.97, 0.96)}.items()
        for batch, value in zip((16, 512), values, strict=True)
        for run in studies.runs(name, batch, [value])
    ]
    text = write_report(studies.write(tmp_path, studies.info(seeds=[0]), lines))
    assert "**One seed:** no spread and no interval can be known." in text
    assert "not known: lamb 1.00, sgd 1.00." in text
    assert "whether sgd is as good as lamb isn't known" in text
    assert "±" not in text and "Not complete" not in text


@pytest.mark.parametrize("group", ["sweep", "trial", "ablation", "base"])
def test_a_study_of_one_kind_of_runs_alone(tmp_path, without_figures, group):
    info = studies.info() | {"metric": None}
    page = page_of(studies.write(tmp_path, info, studies.runs("lamb", 16, [None, 0.9], group)))
    assert "Accuracy" not in page.headings
    assert "No verdict: there is no untuned or tuned run yet." in page.text


@pytest.mark.parametrize(
    "batches", [(16,), (16, 512)], ids=["one batch", "nothing reached, nothing done"]
)
def test_figures_of_a_study_with_little_in_it(tmp_path, batches):
    """One batch, all runs of an optimizer diverged, a target that none reached: still drawn."""
    lines, curves = [], []
    for batch in batches:
        for run in [*studies.runs("lamb", batch, [0.9]), *studies.runs("sgd", batch, [None])]:
            lines.append(run)
            curves += studies.curve(run, [2.0, "nan"], [0.5, ""])
    study = read(studies.write(tmp_path, studies.info(target=0.95), lines, curves))
    for draw in (figures.accuracy, figures.updates_to_target, figures.training_curves):
        drawn = draw(study, tmp_path)
        assert (tmp_path / f"{drawn.name}.png").stat().st_size > 5000


def test_the_command_prints_the_tables_and_where_the_page_is(tmp_path, without_figures, capsys):
    studies.write(tmp_path, studies.info(), studies.runs("lamb", 16, [0.99]))
    assert main(["--report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "## Accuracy" in printed and f"{tmp_path / 'report.html'} shows the same" in printed


@pytest.mark.parametrize("batches, drawn", [((16,), 0), ((16, 512), 1)])
def test_updates_to_the_target_are_drawn_where_there_are_batches_to_compare(
    tmp_path, batches, drawn
):
    study = read(studies.whole(tmp_path, ["lamb"], batches=batches, seeds=1, tuned=False))
    [found] = [s for s in report._sections(study) if s.heading == "Updates to the target"]
    assert len(found.tables) == 1 and len(found.drawings) == drawn


def test_optimizers_keep_their_look_and_differ_in_it(tmp_path):
    names = [f"optimizer{number:02}" for number in range(16)]
    lines = [run for name in names for run in studies.runs(name, 16, [0.9])]
    study = read(studies.write(tmp_path, studies.info(optimizers=names), lines))
    looks = [figures.style(study, name) for name in names]
    assert len({(look["color"], look["marker"]) for look in looks}) == 16
    assert {look["linestyle"] for look in looks} == {"-"}
    tuned = figures.style(study, names[0], "tuned")
    assert tuned["color"] == looks[0]["color"] and tuned["linestyle"] == "--"


def test_how_it_was_run_is_all_there(tmp_path, without_figures):
    info = studies.info(rules={"lamb": "the square root and LEGW"}, seeds=[0])
    page = page_of(studies.write(tmp_path, info, studies.runs("lamb", 16, [0.99])))
    for text in ("--recipe lenet_digits", "the square root and LEGW", "3.15.1", "2 cores"):
        assert text in page.text
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "- command: python -m tf_largebatch.study --recipe lenet_digits\n" in text
    assert "- rules:\n  - lamb: the square root and LEGW\n" in text
    assert json.loads((tmp_path / "study.json").read_text(encoding="utf-8")) == info
