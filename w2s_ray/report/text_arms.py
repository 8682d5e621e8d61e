"""What a study of generated text says of each method: arms of samples, rates, comparisons."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2s_ray.report.answers import Score
from w2s_ray.report.page import Cell
from w2s_ray.report.text_scores import Row, perplexity
from w2s_ray.spec.methods import METHODS
from w2s_ray.statistics.decomposition import Array, decompose
from w2s_ray.statistics.proportions import proportion_interval
from w2s_ray.statistics.recovered_gap import recovered_gap
from w2s_ray.statistics.text_verdicts import (
    Arm,
    TextComparison,
    compare_texts,
    prompt_means,
    rate,
    rated,
)

BASELINES = ("weak_sft", "sft_before", "weak")
"""Methods that others are compared with, the first that there is."""
NOT_COMPARED = ("weak_before", "ceiling", "best_of_n")
"""They bound the others, or read the truth."""
_FEWEST = 2  # prompts that a rate is of


@dataclass(frozen=True)
class TextSetting:
    """One method, with its α.

    Attributes:
        rows: of its finished cells, one per seed.
        samples: of each of them, by key.
        prompt_ids: of each split, of all methods of the pair: the order of every arm.
    """

    method: str
    alpha: float | None
    rows: Sequence[Row]
    samples: Mapping[str, Sequence[Row]] = field(repr=False)
    prompt_ids: Mapping[str, Sequence[str]] = field(repr=False)

    @property
    def label(self) -> str:
        return self.method if self.alpha is None else f"{self.method} α={self.alpha:g}"

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

    def arm(self, split: str = "test", seeds: Sequence[int] | None = None) -> Arm | None:
        """Its samples of a split in the order of prompt ids; None without any.

        Args:
            seeds: whose samples; None: of all finished cells.
        """
        chosen = [row for row in self.rows if seeds is None or row["seed"] in seeds]
        chosen = sorted(chosen, key=lambda row: int(row["seed"]))
        grids = [_grid(self.samples[row["key"]], self.prompt_ids[split]) for row in chosen]
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
        )

    def rate(self, split: str) -> Score | None:
        """The rate of a split with its interval."""
        arm = self.arm(split)
        if arm is None or rated([arm.rewards]).sum() < _FEWEST:
            return None
        estimate = rate(arm)
        return Score(estimate, proportion_interval(estimate))

    def rate_cell(self, split: str) -> Cell:
        """The same as a cell of a table."""
        found = self.rate(split)
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


def _grid(samples: Sequence[Row], prompt_ids: Sequence[str]) -> _Grid | None:
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
            rewards[number, sample] = np.nan if row["reward"] is None else row["reward"]
            words[number, sample] = np.nan if row["words"] is None else row["words"]
    number_of = {name: number for number, name in enumerate(sorted(set(names)))}
    return _Grid(rewards, words, np.array([number_of[name] for name in names], dtype=np.int64))


@dataclass(frozen=True)
class ModelPair:
    """All methods of one weak and one strong model.

    Attributes:
        number: of the pair in its study, from 1.
        settings: those with a finished cell, in the order of ``METHODS``.
    """

    number: int
    prompts: str
    weak: str
    strong: str
    settings: tuple[TextSetting, ...]

    @property
    def name(self) -> str:
        return f"{self.prompts}: {self.weak} → {self.strong}"

    @property
    def slug(self) -> str:
        """For names of files."""
        text = f"{self.number}-{self.weak}-{self.strong}".lower()
        return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)

    @property
    def seeds(self) -> int:
        return max((len(setting.seeds) for setting in self.settings), default=0)

    @property
    def keys(self) -> set[str]:
        return {key for setting in self.settings for key in setting.keys}

    @cached_property
    def baseline(self) -> TextSetting | None:
        """What others are compared with; None without any."""
        by_method = {setting.method: setting for setting in self.settings}
        return next((by_method[name] for name in BASELINES if name in by_method), None)

    @property
    def not_compared(self) -> list[str]:
        """Methods that could be compared, but share no seed or prompts with the baseline."""
        compared = {id(setting) for setting, _ in self.comparisons}
        return [
            of.label
            for of in self.settings
            if of.method not in NOT_COMPARED and of is not self.baseline and id(of) not in compared
        ]

    @cached_property
    def comparisons(self) -> list[tuple[TextSetting, TextComparison]]:
        """Every other method against the baseline."""
        return [] if self.baseline is None else self.against(self.baseline)

    def against(self, baseline: TextSetting) -> list[tuple[TextSetting, TextComparison]]:
        """Every other method against one, over the seeds and prompts of both."""
        others = [
            setting
            for setting in self.settings
            if setting is not baseline and setting.method not in NOT_COMPARED
        ]
        known: list[tuple[TextSetting, Arm, Arm]] = []
        for setting in others:
            seeds = sorted({*setting.seeds} & {*baseline.seeds})
            arm, against = setting.arm("test", seeds), baseline.arm("test", seeds)
            if arm is None or against is None:
                continue
            if rated([arm.rewards, against.rewards]).sum() >= _FEWEST:
                known.append((setting, arm, against))
        found = compare_texts([(arm, against) for _, arm, against in known])
        return [(setting, of) for (setting, *_), of in zip(known, found, strict=True)]

    def recovered(self, setting: TextSetting) -> Cell:
        """The gap recovered, over the seeds that weak model, method and ceiling have."""
        by_method = {of.method: of for of in self.settings}
        three = [by_method.get("weak"), setting, by_method.get("ceiling")]
        if any(of is None for of in three):
            return Cell()
        present = [of for of in three if of is not None]
        seeds = sorted(set.intersection(*(set(of.seeds) for of in present)))
        arms = [of.arm("test", seeds) for of in present]
        rewards = [arm.rewards for arm in arms if arm is not None]
        if len(rewards) < len(present) or not seeds:
            return Cell()
        known = rated(rewards)
        if known.sum() < _FEWEST:
            return Cell()
        scores = np.stack([prompt_means(of)[:, known] for of in rewards])
        found = recovered_gap(decompose(scores))
        return Cell(found.value, found.low, found.high) if found.is_resolved else Cell()


def model_pairs(rows: Sequence[Row], samples: Sequence[Row]) -> list[ModelPair]:
    """The pairs of models of a study, with what each method gave."""
    of_key: dict[str, list[Row]] = defaultdict(list)
    for sample in samples:
        of_key[sample["key"]].append(sample)
    pairs: dict[tuple[str, str, str], dict[tuple[str, float | None], list[Row]]] = {}
    for row in rows:
        names = row["prompts"], row["weak"], row["strong"]
        of_pair = pairs.setdefault(names, {})
        if row["key"] in of_key:
            of_pair.setdefault((row["method"], row["alpha"]), []).append(row)
    return [
        _pair(number, names, settings, of_key)
        for number, (names, settings) in enumerate(pairs.items(), start=1)
    ]


def _pair(
    number: int,
    names: tuple[str, str, str],
    settings: Mapping[tuple[str, float | None], list[Row]],
    samples: Mapping[str, Sequence[Row]],
) -> ModelPair:
    order = list(METHODS)
    ids: dict[str, set[str]] = {"test": set(), "transfer": set()}
    for rows in settings.values():
        for row in rows:
            for sample in samples[row["key"]]:
                ids[sample["split"]].add(sample["prompt_id"])
    prompt_ids = {split: sorted(of) for split, of in ids.items()}
    in_order = sorted(settings.items(), key=lambda of: (order.index(of[0][0]), of[0][1] or 0.0))
    found = tuple(TextSetting(*of, rows, samples, prompt_ids) for of, rows in in_order)
    return ModelPair(number, *names, found)
