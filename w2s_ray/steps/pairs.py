"""``pairs``: preferences between two answers to one prompt.

Either samples of one model that differ in their verdict and are of about equal length, so that
nothing is learned of length; or an answer of one model preferred to one of another. Both are joined
by prompt id, and what gives no pair is counted with its reason.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pyarrow as pa

from w2s_ray.order import hashes
from w2s_ray.plan.step import Step
from w2s_ray.plan.text_configs import PairsConfig
from w2s_ray.steps.context import Context
from w2s_ray.steps.prompts import Prompts
from w2s_ray.steps.samples import is_usable, read_samples, read_verdicts
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.drafts import Draft
from w2s_ray.store.names import PAIRS

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


def run(step: Step, inputs: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
    """Writes ``pairs.parquet``.

    Raises:
        ValueError: there is no pair; says why.
    """
    config, counts = step.config_as(PairsConfig), Counter[str]()
    if config.source == "verdicts":
        found = list(_by_verdict(config, inputs, counts))
    else:
        found = list(_by_source(inputs, counts))
    if not found:
        why = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
        raise ValueError(f"no preference pair can be made of the samples: {why}")
    wanted = sorted({chosen["split"] for chosen, _ in found})
    table = Prompts(inputs["prompts"]).of(wanted)
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
    draft.write(PAIRS, pa.Table.from_pylist(rows, schema=SCHEMA))
    draft.metrics.update(
        pairs=len(rows),
        prompts=len({row["prompt_id"] for row in rows}),
        without_pair=dict(counts),
        mean_length_difference=_mean_length_difference(rows),
    )


def _by_verdict(
    config: PairsConfig, inputs: Mapping[str, Artifact], counts: Counter[str]
) -> Iterator[tuple[_Sample, _Sample]]:
    """Pairs of samples of one prompt, the one with the higher reward first; no sample twice."""
    of_prompt: dict[str, list[_Sample]] = defaultdict(list)
    judged = zip(read_samples(inputs["samples"]), read_verdicts(inputs["verdicts"]), strict=True)
    for sample, verdict in judged:
        usable = is_usable(sample) and verdict["reward"] is not None
        of_prompt[sample["prompt_id"]] += [sample | {"reward": verdict["reward"]}] if usable else []
    assert config.length_tolerance is not None
    for prompt_id, samples in of_prompt.items():
        differing = [
            (better, worse)
            for better, worse in product(samples, samples)
            if better["reward"] > worse["reward"]
        ]
        alike = [pair for pair in differing if _length_difference(*pair) <= config.length_tolerance]
        if not alike:
            few = "prompts with fewer than 2 usable samples"
            same = "prompts whose samples have one verdict"
            other = "prompts whose samples differ too much in length"
            counts[few if len(samples) < 2 else other if differing else same] += 1
        yield from _disjoint(alike, f"{prompt_id}", config)


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


def _by_source(
    inputs: Mapping[str, Artifact], counts: Counter[str]
) -> Iterator[tuple[_Sample, _Sample]]:
    """An answer of each source, by prompt id and number of the sample."""
    rejected = {(s["prompt_id"], s["sample"]): s for s in read_samples(inputs["rejected"])}
    for chosen in read_samples(inputs["chosen"]):
        other = rejected.get((chosen["prompt_id"], chosen["sample"]))
        if other is None or not is_usable(other):
            counts["prompts without a usable rejected answer"] += 1
        elif not is_usable(chosen):
            counts["prompts without a usable chosen answer"] += 1
        elif chosen["text"] == other["text"]:
            counts["prompts with two equal answers"] += 1
        else:
            yield chosen, other


def _length_difference(one: _Sample, other: _Sample) -> float:
    """Difference of the lengths in words, by the longer one."""
    lengths = [len(sample["text"].split()) for sample in (one, other)]
    return (max(lengths) - min(lengths)) / max(1, *lengths)


def _mean_length_difference(rows: list[dict[str, str]]) -> float:
    """Mean of words of the chosen minus words of the rejected answer."""
    words = [len(row["chosen"].split()) - len(row["rejected"].split()) for row in rows]
    return sum(words) / len(words)
