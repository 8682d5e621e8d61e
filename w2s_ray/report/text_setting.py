"""One method of a study of generated text: its answers, as arms that can be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2s_ray.report.answers import Score
from w2s_ray.report.page import Cell
from w2s_ray.report.text_scores import Row, perplexity
from w2s_ray.statistics.decomposition import Array
from w2s_ray.statistics.proportions import proportion_interval
from w2s_ray.statistics.text_rates import FEWEST, Arm, rate, rated


@dataclass(frozen=True)
class TextSetting:
    """One method, with its α and its factor on the learning rates.

    Attributes:
        rows: of its finished cells, one per seed.
        samples: of each of them, by key.
        prompt_ids: of each split, of all methods of the pair: the order of every arm.
        factor: None where there is one alone, or none.
        chosen: the factor that the other half of the prompts chose, for each half.
    """

    method: str
    alpha: float | None
    rows: Sequence[Row]
    samples: Mapping[str, Sequence[Row]] = field(repr=False)
    prompt_ids: Mapping[str, Sequence[str]] = field(repr=False)
    factor: float | None = None
    chosen: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        return " ".join((self.method, *self.variant))

    @property
    def variant(self) -> list[str]:
        """What distinguishes it from others of its method."""
        alpha = [] if self.alpha is None else [f"α={self.alpha:g}"]
        factor = [] if self.factor is None else [f"lr×{self.factor:g}"]
        return [*alpha, *factor, *(["lr chosen"] if self.chosen else [])]

    @property
    def seeds(self) -> list[int]:
        return [row["seed"] for row in self.rows]

    @property
    def keys(self) -> list[str]:
        return [row["key"] for row in self.rows]

    @property
    def answers(self) -> list[Sequence[Row]]:
        """The samples of each seed."""
        return [self.samples[key] for key in self.keys]

    @property
    def failed_checks(self) -> int:
        """Answers without a reward."""
        names = ("failed_checks", "transfer_failed_checks")
        return sum((row[name] or 0) for row in self.rows for name in names)

    def arm(
        self, split: str = "test", seeds: Sequence[int] | None = None, reward: str = "reward"
    ) -> Arm | None:
        """Its samples of a split in the order of prompt ids; None without any.

        Args:
            seeds: whose samples; None: of all finished cells.
            reward: column of the samples with the rewards.
        """
        chosen = [row for row in self.rows if seeds is None or row["seed"] in seeds]
        chosen = sorted(chosen, key=lambda row: int(row["seed"]))
        ids = self.prompt_ids[split]
        grids = [_grid(self.samples[row["key"]], ids, reward) for row in chosen]
        if not grids or any(grid is None for grid in grids):
            return None
        most = max(grid.rewards.shape[1] for grid in grids if grid is not None)
        padded = [
            [
                np.pad(of, ((0, 0), (0, most - of.shape[1])), constant_values=np.nan)
                for of in (grid.rewards, grid.words)
            ]
            for grid in grids
            if grid is not None
        ]
        rewards, words = (np.stack([grid[n] for grid in padded]) for n in (0, 1))
        return Arm(
            rewards,
            np.nan_to_num(words),
            self.measured("distinct_2", chosen),
            self.measured("repeated_4grams", chosen),
            perplexity([self.samples[row["key"]] for row in chosen]).value,
            grids[0].families if grids[0] is not None else None,
            self._audit(split, seeds) if reward == "reward" and self.is_audited else None,
        )

    @property
    def is_audited(self) -> bool:
        """Whether a judge that nothing was trained on has verdicts too."""
        return any(row.get("audit_reward") is not None for of in self.answers for row in of)

    def _audit(self, split: str, seeds: Sequence[int] | None) -> Array | None:
        arm = self.arm(split, seeds, "audit_reward")
        return None if arm is None else arm.rewards

    def rate(self, split: str, reward: str = "reward") -> Score | None:
        """The rate of a split with its interval; arguments as of ``arm``."""
        arm = self.arm(split, reward=reward)
        if arm is None or rated([arm.rewards]).sum() < FEWEST:
            return None
        estimate = rate(arm)
        return Score(estimate, proportion_interval(estimate))

    def rate_cell(self, split: str, reward: str = "reward") -> Cell:
        """The same as a cell of a table."""
        found = self.rate(split, reward)
        if found is None:
            return Cell()
        return Cell(found.estimate.mean, found.interval.low, found.interval.high)

    def measured(self, name: str, rows: Sequence[Row] | None = None) -> float | None:
        """The mean over seeds of a column of the results."""
        values = [row[name] for row in (self.rows if rows is None else rows)]
        present = [value for value in values if value is not None]
        return fmean(present) if present else None


class _Grid(NamedTuple):
    """(n, k) rewards and words, NaN where there is none, and (n,) numbers of families."""

    rewards: Array
    words: Array
    families: NDArray[np.int64]


def _grid(samples: Sequence[Row], prompt_ids: Sequence[str], reward: str) -> _Grid | None:
    """The samples of some prompts, in this order; None without any."""
    of_prompt: dict[str, list[Row]] = {name: [] for name in prompt_ids}
    for row in samples:
        if row["prompt_id"] in of_prompt:
            of_prompt[row["prompt_id"]].append(row)
    most = max(map(len, of_prompt.values()), default=0)
    if not most:
        return None
    rewards = np.full((len(of_prompt), most), np.nan)
    words = np.full((len(of_prompt), most), np.nan)
    names: list[str] = []
    for number, rows in enumerate(of_prompt.values()):
        names.append(str(rows[0]["family"] or "") if rows else "")
        for sample, row in enumerate(rows):
            rewards[number, sample] = np.nan if row.get(reward) is None else row[reward]
            words[number, sample] = np.nan if row["words"] is None else row["words"]
    number_of = {name: number for number, name in enumerate(sorted(set(names)))}
    return _Grid(rewards, words, np.array([number_of[name] for name in names], dtype=np.int64))
