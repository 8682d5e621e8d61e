"""What a study of generated text says of each method: arms of samples, rates, comparisons."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from w2s_ray.report.page import Cell
from w2s_ray.report.text_chosen import at_chosen_rate
from w2s_ray.report.text_scores import Row
from w2s_ray.report.text_setting import TextSetting
from w2s_ray.spec.methods import METHODS
from w2s_ray.statistics.decomposition import decompose
from w2s_ray.statistics.recovered_gap import recovered_gap
from w2s_ray.statistics.text_rates import FEWEST, Arm, prompt_means, rated
from w2s_ray.statistics.text_verdicts import TextComparison, compare_texts

BASELINES = ("weak_sft", "sft_before", "weak")
"""Methods that others are compared with, the first that there is."""
NOT_COMPARED = ("weak_before", "ceiling", "best_of_n")
"""They bound the others, or read the truth."""


_Name = tuple[str, float | None, float | None]
"""Method, α, factor on the learning rates."""


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
    def chosen(self) -> tuple[TextSetting, ...]:
        """Each method and α once: at its chosen learning rate, where it has several."""
        of_name: dict[tuple[str, float | None], list[TextSetting]] = {}
        for setting in self.settings:
            of_name.setdefault((setting.method, setting.alpha), []).append(setting)
        return tuple(own[0] if len(own) == 1 else at_chosen_rate(own) for own in of_name.values())

    @property
    def shown(self) -> list[TextSetting]:
        """Every setting, and behind the last rate of a method that at its chosen one."""
        composed = {(of.method, of.alpha): of for of in self.chosen if of.chosen}
        listed: list[TextSetting] = []
        for setting, following in zip(self.settings, (*self.settings[1:], None), strict=True):
            listed.append(setting)
            own = setting.method, setting.alpha
            if following is None or (following.method, following.alpha) != own:
                listed += [composed[own]] if own in composed else []
        return listed

    @cached_property
    def baseline(self) -> TextSetting | None:
        """What others are compared with; None without any."""
        by_method = {setting.method: setting for setting in self.chosen}
        return next((by_method[name] for name in BASELINES if name in by_method), None)

    @property
    def not_compared(self) -> list[str]:
        """Methods that could be compared, but share no seed or prompts with the baseline."""
        compared = {id(setting) for setting, _ in self.comparisons}
        return [
            of.label
            for of in self.chosen
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
            for setting in self.chosen
            if setting is not baseline and setting.method not in NOT_COMPARED
        ]
        known: list[tuple[TextSetting, Arm, Arm]] = []
        for setting in others:
            seeds = sorted({*setting.seeds} & {*baseline.seeds})
            arm, against = setting.arm("test", seeds), baseline.arm("test", seeds)
            if arm is None or against is None:
                continue
            if rated([arm.rewards, against.rewards]).sum() >= FEWEST:
                known.append((setting, arm, against))
        found = compare_texts([(arm, against) for _, arm, against in known])
        return [(setting, of) for (setting, *_), of in zip(known, found, strict=True)]

    def recovered(self, setting: TextSetting) -> Cell:
        """The gap recovered, over the seeds that weak model, method and ceiling have."""
        by_method = {of.method: of for of in self.chosen}
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
        if known.sum() < FEWEST:
            return Cell()
        scores = np.stack([prompt_means(of)[:, known] for of in rewards])
        found = recovered_gap(decompose(scores))
        return Cell(found.value, found.low, found.high) if found.is_resolved else Cell()


def model_pairs(rows: Sequence[Row], samples: Sequence[Row]) -> list[ModelPair]:
    """The pairs of models of a study, with what each method gave."""
    of_key: dict[str, list[Row]] = defaultdict(list)
    for sample in samples:
        of_key[sample["key"]].append(sample)
    pairs: dict[tuple[str, str, str], dict[_Name, list[Row]]] = {}
    for row in rows:
        names = row["prompts"], row["weak"], row["strong"]
        of_pair = pairs.setdefault(names, {})
        if row["key"] in of_key:
            name = row["method"], row["alpha"], row["learning_rate_factor"]
            of_pair.setdefault(name, []).append(row)
    return [
        _pair(number, names, settings, of_key)
        for number, (names, settings) in enumerate(pairs.items(), start=1)
    ]


def _pair(
    number: int,
    names: tuple[str, str, str],
    settings: Mapping[_Name, list[Row]],
    samples: Mapping[str, Sequence[Row]],
) -> ModelPair:
    order = list(METHODS)
    ids: dict[str, set[str]] = {"test": set(), "transfer": set()}
    for rows in settings.values():
        for row in rows:
            for sample in samples[row["key"]]:
                ids[sample["split"]].add(sample["prompt_id"])
    prompt_ids = {split: sorted(of) for split, of in ids.items()}
    count = Counter((method, alpha) for method, alpha, _ in settings)
    in_order = sorted(
        settings.items(), key=lambda of: (order.index(of[0][0]), of[0][1] or 0.0, of[0][2] or 0.0)
    )
    found = tuple(
        TextSetting(
            method,
            alpha,
            rows,
            samples,
            prompt_ids,
            factor if count[method, alpha] > 1 else None,
        )
        for (method, alpha, factor), rows in in_order
    )
    return ModelPair(number, *names, found)
