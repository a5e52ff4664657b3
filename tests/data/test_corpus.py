"""Documents from text files and from what TensorFlow Datasets prepared."""

import re

import pytest

from prepared_texts import write_prepared
from tf_largebatch.data import corpus as corpora

pytestmark = pytest.mark.tensorflow


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_lines_are_sentences_and_empty_lines_end_documents(tmp_path):
    write(
        tmp_path,
        {
            "wiki/b.txt": "\ufeffOne.\nTwo.\r\n\n\n  Three. \n",
            "books/a.txt": "Vier.\n \nFünf.\nSix.",
            "books/readme.md": "Not this.",
        },
    )
    corpus = corpora.text_files(tmp_path)
    expected = [["Vier."], ["Fünf.", "Six."], ["One.", "Two."], ["Three."]]
    assert list(corpus.documents()) == expected and list(corpus.documents()) == expected


def test_prose_is_paragraphs_of_sentences(tmp_path):
    write(tmp_path, {"a.txt": "One runs\non. Two\nends.\n\nThree."})
    assert list(corpora.text_files(tmp_path, prose=True).documents()) == [
        ["One runs on.", "Two ends."],
        ["Three."],
    ]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"ab\xff\n", "isn't UTF-8 (byte 2 of the file)"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_or_counted(tmp_path, content, words):
    write(tmp_path, {"a.txt": "One.", "bad.txt": content, "c.txt": "Two."})
    said = re.escape(f"bad.txt {words}. Mend or remove it, ") + ".* the option skip_bad_records.$"
    with pytest.raises(ValueError, match=said):
        list(corpora.text_files(tmp_path).documents())
    corpus = corpora.text_files(tmp_path, skip_bad_records=True)
    for _ in range(2):
        assert list(corpus.documents()) == [["One."], ["Two."]]
        assert corpus.bad_records == {str(tmp_path / "bad.txt"): words}


def test_files_that_are_all_bad_are_an_error(tmp_path):
    write(tmp_path, {"a.txt": b"\xff", "b.txt": ""})
    corpus = corpora.text_files(tmp_path, skip_bad_records=True)
    with pytest.raises(ValueError, match="Received: 2 files, all bad; .*a.txt isn't UTF-8 .byte 0"):
        list(corpus.documents())


def test_vocabularies_and_folders_of_runs_are_no_text(tmp_path):
    write(tmp_path, {"a.txt": "One.", "config.json": "{}", "more/config.json": "{}",
                     "more/b.txt": "Two."})  # fmt: skip
    before = corpora.text_files(tmp_path)
    write(
        tmp_path,
        {
            "vocab.txt": "[PAD]", "runs/1/vocabulary.txt": "[PAD]", "runs/1/config.json": "{}",
            "runs/1/notes.txt": "No.", "runs/1/more/c.txt": "No.", "runs/2/checkpoints/1/x": "",
            "runs/2/log.txt": "No.", "Vocabulary.txt": "[PAD]", "vocabulary.txt": "[PAD]",
        },
    )  # fmt: skip
    after = corpora.text_files(tmp_path)
    assert list(after.documents()) == list(before.documents()) == [["One."], ["Two."]]
    assert after.identity == before.identity
    with pytest.raises(ValueError, match="holds none; vocabularies and folders of runs are passed"):
        corpora.text_files(tmp_path / "runs")


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"text files, \*.txt.*which holds none.*english"):
        corpora.text_files(tmp_path)
    with pytest.raises(ValueError, match="which isn't a folder. Data that need none: english"):
        corpora.text_files(tmp_path / "none")
    with pytest.raises(ValueError, match="Received: data_dir=None. Data that need none: english"):
        corpora.text_files(None)


def test_another_file_is_another_identity(tmp_path):
    write(tmp_path, {"a.txt": "One."})
    first = corpora.text_files(tmp_path).identity
    assert corpora.text_files(tmp_path).identity == first
    assert corpora.text_files(tmp_path, prose=True).identity != first
    write(tmp_path, {"a.txt": "Two!!"})
    assert corpora.text_files(tmp_path).identity != first


def test_prepared_texts_are_read_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", None)
    wiki40b = (
        "\n_START_ARTICLE_\nA title of four words\n_START_PARAGRAPH_\n"
        "The first sentence. It goes on._NEWLINE_A second paragraph is here."
    )
    texts = ["One is short. Two is not.\n\nHeading\nThree comes after all.", "x", wiki40b]
    write_prepared(tmp_path, "wikipedia", "20230601.en", texts)
    corpus = corpora.prepared_texts("wikipedia", tmp_path, config="20230601.en")
    assert list(corpus.documents()) == [
        ["One is short.", "Two is not.", "Three comes after all."],
        ["A title of four words", "The first sentence.", "It goes on.",
         "A second paragraph is here."],
    ]  # fmt: skip


def test_a_damaged_or_missing_prepared_file_is_named(tmp_path):
    folder = write_prepared(tmp_path, "c4", "en", ["This is some text."] * 8 + [b"a b c d \xff"])
    corpus = corpora.prepared_texts("c4", tmp_path, config="en")
    with pytest.raises(ValueError, match="record 4 of .*c4-train.tfrecord-00000-of-00002, with ot"):
        list(corpus.documents())
    path = folder / "c4-train.tfrecord-00001-of-00002"
    path.write_bytes(path.read_bytes()[:-7])
    corpus = corpora.prepared_texts("c4", tmp_path, config="en")
    with pytest.raises(ValueError, match="byte 8"):
        list(corpus.documents())
    (folder / "c4-train.tfrecord-00000-of-00002").rename(folder / "elsewhere")
    with pytest.raises(ValueError, match="c4-train.tfrecord-00000-of-00002 is missing"):
        corpora.prepared_texts("c4", tmp_path, config="en")


def test_without_the_data_the_embedded_ones_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="wiki40b/en isn't in .*no download: english"):
        corpora.prepared_texts("wiki40b", tmp_path, config="en")


def test_a_mixture_has_all_documents_and_all_bad_records(tmp_path):
    write(tmp_path, {"a/a.txt": "One.", "a/bad.txt": "", "b/b.txt": "Two.", "b/bad.txt": b"\xff"})
    parts = [corpora.text_files(tmp_path / n, skip_bad_records=True) for n in "ab"]
    both = corpora.mixed("both", *parts)
    assert list(both.documents()) == [["One."], ["Two."]]
    assert len(both.bad_records) == 2 and both.identity == parts[0].identity + parts[1].identity
