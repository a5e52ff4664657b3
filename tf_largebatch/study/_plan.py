"""The rounds of a study: base rates, then all that follows by rule, then what tuning has chosen."""

from typing import NamedTuple

from tf_largebatch.study import _cells, _rules, _tuning
from tf_largebatch.study._job import Job


class Plan(NamedTuple):
    """What a command asks for. Lists are in the order given."""

    job: Job
    optimizers: list[str]
    batch_sizes: list[int]
    seeds: list[int]
    base_learning_rates: dict[str, float]  # of the optimizers for which they are given
    base_trials: int
    tuning_seed: int
    ablations: list[str]
    sweeps: bool
    tune: str | None  # "grid", "random"
    trials: int
    tune_batch_sizes: list[int]
    space: str

    def check(self):
        """Refuses, before anything is run, what can't be.

        Raises:
            ValueError: as the parts of the plan.
        """
        unknown = set(self.base_learning_rates) - set(self.optimizers)
        if unknown:
            raise ValueError(
                "--base_learning_rates must be of optimizers in the study. Received: "
                f"{', '.join(sorted(unknown))}. There are {', '.join(self.optimizers)}."
            )
        if self.tuning_seed in self.seeds and (self.tune or self.base_cells()):
            raise ValueError(
                "Tuning must not see a seed that is reported. Received: "
                f"--tuning_seed={self.tuning_seed}, --seeds={','.join(map(str, self.seeds))}. "
                "Choose another."
            )
        for cell in self.cells(self.provisional_rates()):
            _cells.command(self.job, cell)

    def base_cells(self):
        """The runs that find the base rates that aren't given; as many for each optimizer."""
        return [
            cell
            for optimizer in self.optimizers
            if optimizer not in self.base_learning_rates
            for cell in _cells.base_trials(self.job, optimizer, self.base_trials, self.tuning_seed)
        ]

    def base_rates(self, results):
        """{optimizer: its learning rate at the base batch}: given, or the best that was tried.

        Args:
            results: {cell name: row of results.csv}.

        Raises:
            RuntimeError: if no trial of an optimizer got to its end.
        """
        found, cells = {}, self.base_cells()
        for optimizer in self.optimizers:
            if optimizer in self.base_learning_rates:
                found[optimizer] = self.base_learning_rates[optimizer]
                continue
            best = _tuning.best([c for c in cells if c.optimizer == optimizer], results)
            if best is None:
                raise RuntimeError(
                    f"None of the {self.base_trials} base rates of {optimizer} trained to the end. "
                    f"Give one that does: --base_learning_rates={optimizer}=..."
                )
            found[optimizer] = best.setting.learning_rate
        return found

    def provisional_rates(self):
        """Rates to plan with, before the base rates are found: the middle of those tried."""
        return {
            optimizer: self.base_learning_rates.get(
                optimizer, _rules.middle_rate(self.job, optimizer)
            )
            for optimizer in self.optimizers
        }

    def cells(self, rates):
        """All that follows from the base rates: untuned, ablated, swept, and the trials."""
        job, sizes, seeds = self.job, self.batch_sizes, self.seeds
        found = _cells.untuned(job, rates, sizes, seeds)
        found += _cells.ablation(job, self.ablations, rates, sizes, seeds)
        if self.sweeps:
            found += _cells.sweep(job, rates, sizes, seeds[:1])
        return found + [cell for tuning in self.tunings(rates) for cell in tuning]

    def tunings(self, rates):
        """The trials of each optimizer at each tuned batch size: a list of cells for each."""
        if self.tune is None:
            return []
        return [
            _tuning.trials(
                self.job, optimizer, batch, _rules.ruled(self.job, optimizer, rate, batch),
                method=self.tune, count=self.trials, seed=self.tuning_seed, space_name=self.space,
            )
            for batch in self.tune_batch_sizes
            for optimizer, rate in rates.items()
        ]  # fmt: skip

    def tuned_cells(self, rates, results):
        """The best trial of each, with all seeds; none where no trial trained to the end."""
        winners = [_tuning.best(trials, results) for trials in self.tunings(rates)]
        return self._with_all_seeds([winner for winner in winners if winner])

    def all_cells(self):
        """Every cell there will be, at provisional settings; of tuned ones, all that may come."""
        rates = self.provisional_rates()
        firsts = [trials[0] for trials in self.tunings(rates)]
        return self.base_cells() + self.cells(rates) + self._with_all_seeds(firsts)

    def _with_all_seeds(self, winners):
        return [
            winner._replace(group="tuned", seed=seed, trial=None)
            for seed in self.seeds
            for winner in winners
        ]

    def spaces(self, rates):
        """{optimizer: {"learning_rate at batch 512": [values], ...}} of the tuning."""
        found = {}
        for batch in self.tune_batch_sizes:
            for optimizer, rate in rates.items():
                setting = _rules.ruled(self.job, optimizer, rate, batch)
                lists = _tuning.space(self.job, optimizer, setting, self.space)
                for key, values in lists.items():
                    found.setdefault(optimizer, {})[f"{key} at batch {batch}"] = sorted(values)
        return found
