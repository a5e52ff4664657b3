"""What train.py's small runs reach, held out: recipes' `--smoke`, and digits in each precision.

Every run is train.py itself in a process of its own, as a user types it. The small runs show that a
recipe's whole way works and learns on data that packages carry; they don't show large batches.

    PYTHONPATH=. .venv/bin/python benchmarks/small_runs.py --seeds 3 --out docs/results
"""

import argparse
import csv
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from benchmarks import _report
from tf_largebatch import recipes

ROOT = pathlib.Path(__file__).resolve().parents[1]
SECTIONS = ("recipes", "precisions")
# The default job, digits at batch 256, with these flags.
PRECISIONS = {
    "float32": ["--precision=float32"],
    "mixed_bfloat16": ["--precision=mixed_bfloat16"],
    "bfloat16": ["--precision=bfloat16"],
    "bfloat16, rounded at random": ["--precision=bfloat16", "--weight_rounding=stochastic"],
    "mixed_float16": ["--precision=mixed_float16"],
}
# Each recipe's figures: name in train.py's RESULT, what it is, its factor.
FIGURES = {
    "accuracy": ("accuracy, %", 100),
    "masked_lm_accuracy": ("masked tokens guessed, %", 100),
    "perplexity": ("perplexity", 1),
    "exact_match": ("exact match, %", 1),
    "f1": ("F1, %", 1),
    "bleu": ("BLEU", 1),
}
STARTS_FROM = {"bert_squad": "bert_lamb_mixed"}  # its encoder


def train(flags):
    """RESULT of one run."""
    done = subprocess.run(
        [sys.executable, "train.py", "--progress=none", *flags],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"train.py {' '.join(flags)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))


def small_runs(seeds, folder):
    """{recipe: RESULTs of all seeds}."""
    names = [name for name in recipes.names() if recipes.load(name).smoke]
    found = {}
    for name in sorted(names, key=lambda name: (name in STARTS_FROM, name)):
        for seed in range(seeds):
            flags = [f"--recipe={name}", "--smoke", f"--seed={seed}"]
            if name in STARTS_FROM:
                flags.append(f"--init_from={folder / f'{STARTS_FROM[name]}-{seed}'}")
            result = train([*flags, f"--model_dir={folder / f'{name}-{seed}'}"])
            found.setdefault(name, []).append(result)
            print(name, seed, {k: result[k] for k in FIGURES if k in result}, flush=True)
    return found


def precisions(seeds, folder):
    """{precision: RESULTs of all seeds} of the default job."""
    found = {}
    for number, (name, flags) in enumerate(PRECISIONS.items()):
        for seed in range(seeds):
            run = folder / f"precision{number}-{seed}"
            result = train([*flags, f"--seed={seed}", f"--model_dir={run}"])
            found.setdefault(name, []).append(result)
            print(name, seed, result["accuracy"], flush=True)
    return found


def described(values, factor):
    """Mean and deviation, and of one value that."""
    values = [factor * value for value in values]
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def figures(results):
    """One line of text: a recipe's figures."""
    return "; ".join(
        f"{what} {described([result[key] for result in results], factor)}"
        for key, (what, factor) in FIGURES.items()
        if key in results[0]
    )


def main():
    """Runs, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="of each recipe, from 0")
    parser.add_argument("--precision_seeds", type=int, default=5, help="of each precision, from 0")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--out", type=pathlib.Path, help="folder for small_runs.md and .csv")
    arguments = parser.parse_args()
    page, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if "recipes" in arguments.sections:
            found = small_runs(arguments.seeds, folder)
            page += [
                f"## Recipes, `--smoke`, seeds 0 to {arguments.seeds - 1}",
                _report.table(
                    ["recipe", "held out", "updates"],
                    [[f"`{n}`", figures(rs), f"{rs[0]['updates']:,}"] for n, rs in found.items()],
                ),
            ]
            rows += [
                ("recipe", n, s, json.dumps(r)) for n, rs in found.items() for s, r in enumerate(rs)
            ]
        if "precisions" in arguments.sections:
            found = precisions(arguments.precision_seeds, folder)
            page += [
                "## Digits at batch 256 in each precision, seeds 0 to "
                f"{arguments.precision_seeds - 1}",
                "On a processor that emulates the half types.",
                _report.table(
                    ["precision", "held-out accuracy, %"],
                    [[n, described([r["accuracy"] for r in rs], 100)] for n, rs in found.items()],
                ),
            ]
            rows += [
                ("precision", n, s, json.dumps(r))
                for n, rs in found.items()
                for s, r in enumerate(rs)
            ]
    text = "\n\n".join(
        [
            "# Small runs",
            _report.provenance(),
            __doc__.partition("\n\n")[2].partition("\n\n")[0],
            *page,
        ]
    )
    if not arguments.out:
        print(text)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.out / "small_runs.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("section", "name", "seed", "result"))
        writer.writerows(rows)
    _report.write(arguments.out / "small_runs.md", text + "\n")


if __name__ == "__main__":
    main()
