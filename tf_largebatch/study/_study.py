"""A study at work: runs what its plan asks for in a folder, and goes on there where it stopped."""

import contextlib
import json
import os
import shutil
import sys

from tf_largebatch.study import _cells, _description, _processes, _rules, _tuning
from tf_largebatch.study._progress import Progress, duration, seconds_of
from tf_largebatch.study._results import (
    Results,
    curve_of,
    is_complete,
    result_of,
    row_of,
    write_text,
)

FAILURES_IN_A_ROW = 3  # end the study
TAIL_LINES = 5  # of a failed run's output that are shown
DIVERGED = 3  # train.py's exit code
MODELS = ("checkpoints", "best.keras", "final.keras")
_TOLD_BY_RUNS = ("metric", "num_examples", "num_held_out_examples")


class Study:
    """A plan, its folder, and how its runs are made.

    Args:
        plan: a `Plan`, checked.
        folder: where everything is written.
        command: list of the arguments that were given.
        settings: dict of what they say about the runs. When a study is gone on with, lists and
            dicts in it may grow, keys may be added, and all else stays.
        train: path of the training script.
        processes: how many runs side by side.
        keep_models: whether weights and checkpoints of finished runs stay.
        target: the value of the metric for the report's updates to target, or None.
    """

    def __init__(self, plan, folder, command, settings, *, train, processes, keep_models, target):
        self.plan, self.folder, self.command, self.settings = plan, folder, command, settings
        self.train, self.processes = train, processes
        self.keep_models, self.target = keep_models, target
        self.results = Results(folder)
        self.info = _description.read(folder)
        _description.check_same(self.info.get("settings", {}), settings, folder)
        self._progress, self._failures = None, 0
        # Of every run there will be: its name and batch size don't depend on rates.
        self._sizes = {cell.name: cell.global_batch_size for cell in plan.all_cells()}

    def rates(self):
        """(base learning rates, whether they are known): provisional ones before they are found."""
        if all(self.results.is_finished(cell.name) for cell in self.plan.base_cells()):
            return self.plan.base_rates(self.results.rows), True
        return self.plan.provisional_rates(), False

    def describe(self):
        """Prints the rules, the spaces, the runs and how long they may take."""
        rates, known = self.rates()
        plan, rows = self.plan, self.results.rows
        if not known:
            print(f"Where a base rate isn't given, the middle one of {plan.base_trials} tried:")
        self._print_rules(rates)
        for cell in plan.base_cells() + plan.cells(rates):
            state = rows[cell.name]["status"] if cell.name in rows else "to run"
            warmup = f"{cell.setting.warmup:.4g} {cell.setting.warmup_unit}"
            print(
                f"{cell.name}: rate {cell.setting.learning_rate:.6g}, warmup {warmup}, "
                f"weight decay {cell.setting.weight_decay} ({state})"
            )
        left = self._sizes_left()
        tuned = sum(name.startswith("tuned-") for name in self._sizes)
        more = f", of which {tuned} with the settings that win" if tuned else ""
        print(f"{len(self._sizes)} runs{more}; {len(self._sizes) - len(left)} are finished.")
        seconds = seconds_of(left, rows.values())
        if seconds is None:
            print("How long they take isn't known before one of them has finished.")
        else:
            print(f"They take about {duration(seconds / self.processes)}, by those finished.")

    def run(self):
        """Runs everything that isn't finished yet.

        Raises:
            ValueError: if another study is at work in the folder.
            Stopped: by a signal; what ran has been saved.
            RuntimeError: if runs fail one after the other, or nothing can be learnt from them.
        """
        os.makedirs(os.path.join(self.folder, "runs"), exist_ok=True)
        with _processes.alone(os.path.join(self.folder, "study.lock")):
            self._run_all()

    def _run_all(self):
        plan = self.plan
        rates, known = self.rates()
        self._check_cells(plan.base_cells() + (plan.cells(rates) if known else []))
        finished = sum(map(self.results.is_finished, self._sizes))
        self._progress = Progress(len(self._sizes), finished, self.processes)
        self._write_info(rates if known else {})
        self._run(plan.base_cells())
        self._require(plan.base_cells())
        rates = plan.base_rates(self.results.rows)
        self._check_cells(plan.cells(rates))
        self._write_info(rates)
        self._print_rules(rates)
        for optimizer in rates:
            tried = [c for c in plan.base_cells() if c.optimizer == optimizer]
            self._warn_at_the_edge(tried, "--base_learning_rates or more --base_trials")
        self._run(plan.cells(rates))
        for tried in plan.tunings(rates):
            self._require(tried)
            self._warn_at_the_edge(tried, "another --space")
        self._run(plan.tuned_cells(rates, self.results.rows))

    def _print_rules(self, rates):
        for optimizer, rate in rates.items():
            print(f"{optimizer}: {_rules.words(self.plan.job, optimizer, rate)}.")
        for optimizer, lists in (self.plan.spaces(rates) if self.plan.tune else {}).items():
            for name, values in lists.items():
                print(f"{optimizer}, {name}: {', '.join(f'{v:.4g}' for v in values)}")

    def _require(self, trials):
        """Refuses to choose the best of trials before each of them has ended."""
        failed = [cell.name for cell in trials if not self.results.is_finished(cell.name)]
        if failed:
            raise RuntimeError(
                f"{len(failed)} trials failed, {failed[0]} among them, so that the best isn't "
                "known. The same command tries them again."
            )

    def _check_cells(self, cells):
        """Refuses to add to runs that had other settings, such as another base rate."""
        for cell in cells:
            row, setting = self.results.rows.get(cell.name), cell.setting
            if row is not None and float(row["learning_rate"]) != setting.learning_rate:
                raise ValueError(
                    f"The run {cell.name} in {self.folder} had another learning rate. Received: "
                    f"{setting.learning_rate:.6g}, where it was {float(row['learning_rate']):.6g}. "
                    "Repeat the study's own command, or name another --out."
                )

    def failed(self):
        """Names of the cells that have failed: the next call of the same command tries again."""
        return [name for name, row in self.results.rows.items() if row["status"] == "failed"]

    def _run(self, cells):
        left = [cell for cell in cells if not self.results.is_finished(cell.name)]
        by_name = {cell.name: cell for cell in left}
        _processes.run(
            map(self._task, left),
            processes=self.processes,
            ended=lambda task, code, seconds: self._ended(by_name[task.name], code, seconds),
            waiting=self._progress.waiting,
        )

    def _task(self, cell):
        run_folder = self._run_folder(cell)
        if not os.path.exists(os.path.join(run_folder, "config.json")):
            shutil.rmtree(run_folder, ignore_errors=True)  # stopped before it had begun
        return _processes.Task(
            cell.name,
            [
                sys.executable, self.train, *_cells.command(self.plan.job, cell),
                f"--model_dir={run_folder}", "--resume", "--progress=line",
            ],
            f"{run_folder}.txt",
        )  # fmt: skip

    def _ended(self, cell, code, seconds):
        """Takes in a run that has ended; too many failures in a row are the end."""
        run_folder = self._run_folder(cell)
        with open(f"{run_folder}.txt", encoding="utf-8", errors="replace") as file:
            output = file.read()
        result = result_of(output)
        status = {0: "done", DIVERGED: "diverged"}.get(code, "failed")
        if status == "done" and not is_complete(result):
            status = "failed"
        row = row_of(self.plan.job, cell, status, seconds, result)
        if result is not None and self.info.get("metric") is None:
            self.info |= {k: result.get(k) for k in _TOLD_BY_RUNS}
            self._write_info()
        self.results.add(row, curve_of(self.plan.job, cell, run_folder, self.info.get("metric")))
        left = seconds_of(self._sizes_left(), self.results.rows.values())
        self._progress.ended(f"{cell.name}: {self._words(row)}", left)
        if status == "failed":
            self._failures += 1
            tail = "\n".join(f"    {line}" for line in output.splitlines()[-TAIL_LINES:])
            print(f"  {run_folder}.txt ends with:\n{tail}", file=sys.stderr)
            if self._failures == FAILURES_IN_A_ROW:
                raise RuntimeError(
                    f"{FAILURES_IN_A_ROW} runs in a row have failed, with exit code {code} at last "
                    "(their output is above). Mend the reason and give the same command again: "
                    "what is done is kept."
                )
            return
        self._failures = 0
        if not self.keep_models:
            for name in MODELS:
                path = os.path.join(run_folder, name)
                if os.path.isdir(path):
                    shutil.rmtree(path)
                else:
                    with contextlib.suppress(FileNotFoundError):
                        os.remove(path)

    def _words(self, row):
        took = f"in {duration(float(row['seconds']))}"
        if row["status"] != "done":
            return f"{row['status']} {took}"
        return f"{self.info['metric']} {100 * row['value']:.2f} % {took}"

    def _warn_at_the_edge(self, cells, remedy):
        best = _tuning.best(cells, self.results.rows)
        if best is not None and _tuning.at_the_edge(best, cells):
            print(
                f"  The best rate of {best.optimizer} at batch {best.global_batch_size}, "
                f"{best.setting.learning_rate:.4g}, is the last of those tried: a better one may "
                f"lie beyond. Give {remedy}."
            )

    def _sizes_left(self):
        """The batch sizes of the runs that are still to come."""
        return [b for name, b in self._sizes.items() if not self.results.is_finished(name)]

    def _run_folder(self, cell):
        return os.path.join(self.folder, "runs", cell.name)

    def _write_info(self, rates=None):
        """Writes study.json; `rates` are the base rates that are known by now."""
        plan, job, before = self.plan, self.plan.job, self.info
        tuning = None
        if plan.tune:
            known = rates or before.get("base_learning_rates")
            tuning = {
                "method": plan.tune, "trials": plan.trials, "tuning_seed": plan.tuning_seed,
                "space": plan.spaces(known) if known else {},
                "batch_sizes": plan.tune_batch_sizes,
            }  # fmt: skip
        if rates:
            rules = {name: _rules.words(job, name, rate) for name, rate in rates.items()}
            self.info |= {"base_learning_rates": rates, "rules": rules}
        self.info |= {
            "command": self.command, "recipe": job.base.recipe, "data": job.base.data,
            "model": job.base.model, "epochs": job.base.epochs,
            "total_updates": job.base.total_updates,
            "base_global_batch_size": job.base.global_batch_size,
            **{k: before.get(k) for k in _TOLD_BY_RUNS}, "versions": _description.versions(),
            "machine": _description.machine(), "seeds": plan.seeds, "optimizers": plan.optimizers,
            "batch_sizes": plan.batch_sizes, "target": self.target, "tuning": tuning,
            "base_trials": {"trials": plan.base_trials, "tuning_seed": plan.tuning_seed}
            if plan.base_cells() else None,
            "settings": self.settings,
        }  # fmt: skip
        path = os.path.join(self.folder, "study.json")
        write_text(path, json.dumps(self.info, indent=1) + "\n")
