"""train.py on text: phases, outputs, vocabularies, encoders that are taken over."""

import json

import pytest

from train_results import result

pytestmark = pytest.mark.tensorflow
BERT = [
    "--recipe=bert_lamb_mixed", "--smoke", "--data=topics", "--sequence_lengths=16,24",
    "--global_batch_size=64", "--phase_batch_sizes=64,32", "--phase_proportions=2,1",
    "--total_updates=9", "--warmup_updates=2", "--phase_warmup_updates=2,1", "--progress=none",
]  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(main, tmp_path_factory):
    """The folder of a short run of two phases, that was stopped at the switch and gone on with."""
    folder = tmp_path_factory.mktemp("bert") / "run"
    assert main(*BERT, f"--model_dir={folder}", "--max_updates=6") == 0
    assert main(*BERT, f"--model_dir={folder}", "--resume") == 0
    return folder


def test_evaluation_judges_each_phase(run, pretrained):
    code, out, err = run("--eval_only", f"--model_dir={pretrained}")
    assert code == 0, err
    found = result(out)
    assert set(found["phases"]) == {"1", "2"}
    for name in ("masked_lm_accuracy", "perplexity", "next_sentence_accuracy"):
        assert found[name] == found["phases"]["2"][name]
    assert found["phases"]["1"]["perplexity"] != found["perplexity"]


def test_the_run_keeps_its_vocabulary_and_both_judgements(pretrained):
    tokens = (pretrained / "vocabulary.txt").read_text().split("\n")[:-1]
    assert tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(tokens) == 2048
    (newest,) = sorted((pretrained / "checkpoints").glob("*9*"))[-1:]
    assert newest.exists()


def test_without_next_sentences_the_metrics_keep_their_names(run, tmp_path):
    flags = ["--data_options=next_sentence=False", "--max_updates=2"]
    code, out, err = run(*BERT, *flags, f"--model_dir={tmp_path / 'run'}")
    assert code == 0, err
    found = result(out)
    assert 0 <= found["masked_lm_accuracy"] <= 1 < found["perplexity"]
    assert "next_sentence_accuracy" not in found
    assert (tmp_path / "run" / "best.keras").exists()


def test_an_encoder_is_taken_over_with_its_vocabulary(run, pretrained, tmp_path):
    squad = ["--recipe=bert_squad", "--smoke", "--progress=none", "--max_updates=1"]
    start = f"--init_from={pretrained / 'final.keras'}"
    code, out, err = run(*squad, start, f"--model_dir={tmp_path / 'run'}")
    assert code == 0, err
    assert "backbone; the other layers start afresh" in out
    assert (tmp_path / "run" / "vocabulary.txt").read_text() == (
        pretrained / "vocabulary.txt"
    ).read_text()
    assert result(out)["questions"] == 600
    other = tmp_path / "other.txt"
    tokens = (pretrained / "vocabulary.txt").read_text().split("\n")
    other.write_text("\n".join([*tokens[:-3], tokens[-2], tokens[-3], ""]))
    code, _, err = run(*squad, start, f"--data_options=vocabulary={other}", "--dry_run")
    assert code == 2
    assert "must have the vocabulary of the weights" in err


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--model_options=max_sequence_length=20"], "longer than max_sequence_length=20. Rec"),
        (["--model=bert_tiny_spans"], "bert_tiny_spans is for the task spans"),
        (["--model=lenet5"], "lenet5"),
        (["--data=digits"], "no option 'sequence_length'"),
        (["--phase_proportions=1,0"], "phase_proportions must be above 0"),
        (["--recipe=bert_squad", "--label_smoothing=0.1"], "Label smoothing"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(run, tmp_path, flags, words):
    flags = [*(["--smoke"] if "squad" in flags[0] else BERT), *flags]
    code, _, err = run(*flags, f"--model_dir={tmp_path / 'run'}")
    assert code == 2
    assert words in err
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_only_with_the_data_that_it_began_with(run, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    document = "The first words of it.\nThere are more words here.\nThese words are the last.\n\n"
    (texts / "a.txt").write_text(document * 60)
    flags = [*BERT, "--data=text_folder", f"--data_dir={texts}", "--phase_batch_sizes=8,4"]
    flags += ["--global_batch_size=8", f"--model_dir={tmp_path / 'run'}"]
    code, _, err = run(*flags, "--max_updates=3")
    assert code == 0, err
    (texts / "b.txt").write_text(document * 5)
    code, _, err = run(*flags, "--resume")
    assert code == 2
    assert "The data are not those that the run began with" in err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"] == "text_folder"
