"""``pairs``: preferences between two answers to one prompt.

Samples of one model that differ in their verdict and are of about equal length, so that nothing is
learned of length; or an answer of one model preferred to one of another; or pairs that are given.
Samples are joined by prompt id, and what gives no pair is counted with its reason.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

import pyarrow as pa

from w2s_ray.data.sources import data_identity
from w2s_ray.order import hashes
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import GivenPairsConfig, PairsConfig
from w2s_ray.steps.context import Context
from w2s_ray.steps.prompts import prompts_of
from w2s_ray.steps.samples import is_usable, read_samples, read_verdicts
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import PAIRS
from w2s_ray.store.text_results import PROMPTS_OF
from w2s_ray.tasks.given_pairs import given_pairs

SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
    ]
)
_Sample = dict[str, Any]
_PAIR = 2


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``pairs.parquet``.

    Raises:
        ValueError: there is no pair; says why.
        InputError: there are too few given ones.
    """
    if isinstance(step.config, GivenPairsConfig):
        _write_given(step, inputs, draft)
        return
    config, counts = step.config_as(PairsConfig), Counter[str]()
    if config.source == "verdicts":
        rewards = (verdict["reward"] for verdict in read_verdicts(inputs["verdicts"]))
        judged = zip(read_samples(inputs["samples"]), rewards, strict=True)
        found = list(preferences(judged, config, counts))
    else:
        chosen_from, rejected_from = (read_samples(inputs[of]) for of in ("chosen", "rejected"))
        found = list(joined(chosen_from, rejected_from, counts))
    if not found:
        why = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
        raise ValueError(f"no preference pair can be made of the samples: {why}")
    wanted = sorted({chosen["split"] for chosen, _ in found})
    table = prompts_of(inputs, wanted)
    texts = dict(zip(table["prompt_id"].to_pylist(), table["prompt"].to_pylist(), strict=True))
    rows = [
        {
            "row_id": f"{chosen['prompt_id']}/{chosen['sample']}-{rejected['sample']}",
            "prompt_id": chosen["prompt_id"],
            "prompt": texts[chosen["prompt_id"]],
            "chosen": chosen["text"],
            "rejected": rejected["text"],
        }
        for chosen, rejected in found
    ]
    _write(rows, draft)
    draft.metrics.update(without_pair=dict(counts))


def _write_given(step: Step, inputs: Mapping[str, Artifact], draft: Draft) -> None:
    """Writes pairs of the researcher's own, none of a prompt that the study has elsewhere."""
    config = step.config_as(GivenPairsConfig)
    assert step.data is not None
    if data_identity(step.data) != config.data:
        raise ValueError("the pairs have changed since the study was planned; run it again")
    splits = [role.removeprefix(PROMPTS_OF) for role in inputs]
    elsewhere = set(prompts_of(inputs, splits)["prompt"].to_pylist())
    read = given_pairs(step.data, config.render, elsewhere)
    _write([pair._asdict() for pair in read.pairs], draft)
    draft.metrics.update(read=read.rows, left_out=dict(read.left_out), notes=dict(read.notes))


def _write(rows: list[dict[str, str]], draft: Draft) -> None:
    draft.write(PAIRS, pa.Table.from_pylist(rows, schema=SCHEMA))
    draft.metrics.update(
        pairs=len(rows),
        prompts=len({row["prompt_id"] for row in rows}),
        mean_length_difference=_mean_length_difference(rows),
    )


def preferences(
    judged: Iterable[tuple[_Sample, float | None]], config: PairsConfig, counts: Counter[str]
) -> Iterator[tuple[_Sample, _Sample]]:
    """Pairs of samples of one prompt, the one with the higher reward first; no sample twice.

    Args:
        judged: samples with their rewards.
        counts: takes the number of prompts without a pair, by reason.
    """
    of_prompt: dict[str, list[_Sample]] = defaultdict(list)
    for sample, reward in judged:
        usable = is_usable(sample) and reward is not None
        of_prompt[sample["prompt_id"]] += [sample | {"reward": reward}] if usable else []
    assert config.length_tolerance is not None
    for prompt_id, samples in of_prompt.items():
        differing = [
            (better, worse)
            for better, worse in product(samples, samples)
            if better["reward"] > worse["reward"]
        ]
        alike = [pair for pair in differing if _length_difference(*pair) <= config.length_tolerance]
        if not alike:
            few = "prompts with fewer than 2 samples that have ended, hold a word and were judged"
            same = "prompts whose samples have one verdict"
            other = "prompts whose samples differ too much in length"
            counts[few if len(samples) < _PAIR else other if differing else same] += 1
        yield from _disjoint(alike, prompt_id, config)


def _disjoint(
    pairs: list[tuple[_Sample, _Sample]], prompt_id: str, config: PairsConfig
) -> Iterator[tuple[_Sample, _Sample]]:
    """The pairs that differ most, in an order of hashes where they differ alike."""
    names = [f"{prompt_id}/{a['sample']}-{b['sample']}" for a, b in pairs]
    drawn = hashes(names, config.seed, "pairs").tolist()
    gaps = [better["reward"] - worse["reward"] for better, worse in pairs]
    used: set[int] = set()
    count = 0
    for n in sorted(range(len(pairs)), key=lambda n: (-gaps[n], drawn[n])):
        own = {pairs[n][0]["sample"], pairs[n][1]["sample"]}
        if count < config.most_per_prompt and not own & used:
            used |= own
            count += 1
            yield pairs[n]


def joined(
    chosen: Iterable[_Sample], rejected: Iterable[_Sample], counts: Counter[str]
) -> Iterator[tuple[_Sample, _Sample]]:
    """An answer of each source, by prompt id and number of the sample; arguments as above."""
    others = {(sample["prompt_id"], sample["sample"]): sample for sample in rejected}
    for sample in chosen:
        other = others.get((sample["prompt_id"], sample["sample"]))
        if other is None or not is_usable(other):
            counts["prompts without a usable rejected answer"] += 1
        elif not is_usable(sample):
            counts["prompts without a usable chosen answer"] += 1
        elif sample["text"] == other["text"]:
            counts["prompts with two equal answers"] += 1
        else:
            yield sample, other


def _length_difference(one: _Sample, other: _Sample) -> float:
    """Difference of the lengths in words, by the longer one."""
    lengths = [len(sample["text"].split()) for sample in (one, other)]
    return (max(lengths) - min(lengths)) / max(1, *lengths)


def _mean_length_difference(rows: list[dict[str, str]]) -> float:
    """Mean of words of the chosen minus words of the rejected answer."""
    words = [len(row["chosen"].split()) - len(row["rejected"].split()) for row in rows]
    return sum(words) / len(words)
