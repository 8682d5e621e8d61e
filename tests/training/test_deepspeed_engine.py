"""DeepSpeedEngine is TorchEngine, at every ZeRO stage, in groups of one and of two processes.

The ranks run all ``CASES`` in one process group and return what they saw; the tests compare it with
TorchEngine, which trains in pytest's own process.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from tests.testing.process_groups import ProcessGroups
from tests.testing.zero_cases import (
    BF16,
    CASES,
    CLIP,
    FILLED,
    FROZEN,
    LORA_BF16_3,
    RATE,
    ROWS,
    SAME,
    STAGES,
    STEPS,
    THRESHOLD,
    UNEVEN,
    Case,
    close,
    engine_of,
    line,
    model,
    rows,
    state_of,
    stream,
)
from w2s_ray.models.trainable import load_state
from w2s_ray.objectives.confidence import ThresholdBuffer
from w2s_ray.objectives.objective import Objective
from w2s_ray.training.engine import Adam, Batch, Engine, TorchEngine
from w2s_ray.training.loop import train

pytestmark = pytest.mark.groups


@torch.no_grad()
def scores(case: Case, scorer: Callable[..., Tensor]) -> Tensor:
    tokens, _ = rows(99, 5, case.per_row)
    return scorer(**line(tokens, torch.arange(5))).clone()


def run(case: Case, engine: Engine, batches: Iterator[list[Batch]]) -> dict[str, Any]:
    """Trains and, half way and at the end, scores rows that all ranks share."""
    scored = []

    def score(numbers: dict[str, Any]) -> None:
        if numbers["step"] in (STEPS // 2, STEPS):
            scored.append(scores(case, lambda **inputs: engine.logits(inputs)))

    buffer = ThresholdBuffer(0.5, 16) if case.per_row == 1 else None
    objective = Objective(confidence_weight=0.5 if buffer else 0.0)
    curve = train(
        engine,
        batches,
        objective,
        total_steps=STEPS,
        learning_rate=RATE,
        buffer=buffer,
        progress=score,
    )
    return {
        "tokens": curve.tokens,
        "loss": torch.tensor(curve.loss),
        "norm": torch.tensor(curve.gradient_norm),
        "threshold": buffer.threshold if buffer else 0.0,
        "scores": torch.stack(scored),
        "everything": dict(engine.whole([n for n, _ in model(case)[0].named_parameters()])),
        "state": state_of(engine, case),
    }


@cache
def reference(case: Case) -> dict[str, Any]:
    """The same run by TorchEngine in one process, the batch cut into ``pieces``, or whole if it
    is cut by a budget; rows of weight 0 left out."""
    scorer, parameters = model(case)
    start = {n: p.detach().float().clone() for n, p in scorer.named_parameters()}
    batches = stream(replace(case, budget=case.budget and 10**9), 0, 1, case.pieces)
    if case.real_rows < ROWS:
        assert case.pieces == 1
        batches = ([first_rows(batch, case.real_rows)] for [batch] in batches)
    engine = TorchEngine(scorer, parameters, Adam(clip_norm=case.clip))
    return {**run(case, engine, batches), "start": start}


def first_rows(batch: Batch, count: int) -> Batch:
    segments = batch.inputs["segments"][:count]
    input_ids = batch.inputs["input_ids"][: int(segments.sum())]
    inputs = {"input_ids": input_ids, "segments": segments}
    return Batch(inputs, batch.soft_labels[:count], batch.weights[:count], batch.tokens)


def expected(case: Case, pieces: int) -> dict[str, Any]:
    return reference(replace(case, stage=0, pieces=pieces))


# What each rank does.


def run_all(rank: int, world: int) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for case in CASES:
        with engine_of(case) as engine:
            begin = state_of(engine, case)
            seen[case] = run(case, engine, stream(case, rank, world, case.pieces))
            seen[case]["begin"] = begin
    seen["gathered"] = gathered(rank)
    for stage in STAGES:
        seen["refused", stage] = refused(stage)
        seen["freed", stage] = freed(stage)
    return seen


def gathered(rank: int) -> list[Tensor]:
    engine = Case(0).engine(*model(Case(0)))
    values = torch.arange(6).view(3, 2) + 10 * rank
    parts = [engine.gather(v) for v in (values, values.float(), values[:, 0] % 2 == 0)]
    engine.close()
    return parts


def one_step(engine: Engine, factor: float = 1.0, last: bool = True) -> None:
    logits = engine.logits(line(rows(0, 2, 2)[0], torch.arange(2)))
    engine.backward(logits.sum() * factor, last=last)
    engine.step(RATE)


def refused(stage: int) -> list[str]:
    """What a step says before the last micro-batch, and after a gradient that is not finite."""
    engine = Case(stage).engine(*model(Case(stage)))
    said = []
    for factor, last in ((1.0, False), (float("nan"), True)):
        try:
            one_step(engine, factor, last)
        except (RuntimeError, FloatingPointError) as error:
            said.append(f"{type(error).__name__}: {error}")
    engine.close()
    return said


def held(parameters: list[Any]) -> list[tuple[int, int, int]]:
    """Of each parameter under ZeRO 3: elements held whole, in the shard, and in all."""
    return [(p.numel(), p.ds_tensor.numel(), p.ds_numel) for p in parameters]


def freed(stage: int) -> dict[str, Any]:
    """Whether closing frees masters, moments and shards while the caller still has the scorer."""
    linear = nn.functional.linear
    scorer, parameters = model(Case(stage, precision="bf16"))
    engine = Case(stage).engine(scorer, parameters)
    one_step(engine)
    inner: Any = engine._engine
    tensors = {"moments": next(iter(inner.basic_optimizer.state.values()))["exp_avg"]}
    if stage == 3:
        tensors["masters"] = inner.optimizer.fp32_partitioned_groups_flat[0]
        tensors["shards"] = parameters[0].ds_tensor  # type: ignore[attr-defined]
    else:
        tensors["masters"] = inner.optimizer.single_partition_of_fp32_groups[0]
    storages = {name: StorageWeakRef(t.untyped_storage()) for name, t in tensors.items()}
    del tensors, inner
    before = {name: storage.expired() for name, storage in storages.items()}
    shares = held(parameters) if stage == 3 else []
    engine.close()
    deadline = time.monotonic() + 100  # gloo's thread lets go of what it sent a moment later
    while time.monotonic() < deadline and not all(s.expired() for s in storages.values()):
        time.sleep(0.05)
    return {
        "before": before,
        "after": {name: storage.expired() for name, storage in storages.items()},
        "restored": nn.functional.linear is linear,
        "held": shares,
    }


# What pytest does.


class Group:
    """What the ranks of one group saw."""

    def __init__(self, world: int, ranks: list[dict[str, Any]], output: str, compiled: list[Path]):
        self.world, self.ranks, self.output, self.compiled = world, ranks, output, compiled

    def __getitem__(self, name: Any) -> list[Any]:
        return [rank[name] for rank in self.ranks]


@pytest.fixture(scope="module")
def groups(process_groups: ProcessGroups) -> dict[int, Group]:
    """Groups of one and of two, at the same time."""
    seen = process_groups.run(run_all, {1: (), 2: ()})
    return {
        world: Group(
            world,
            ranks,
            process_groups[world].output,
            list(process_groups[world].compiled.rglob("*")),
        )
        for world, ranks in seen.items()
    }


@pytest.fixture(params=[1, 2], ids=["one", "two"])
def group(groups: dict[int, Group], request: pytest.FixtureRequest) -> Group:
    return groups[request.param]


@pytest.mark.parametrize("stage", STAGES)
def test_fp32_gives_the_numbers_of_plain_torch_with_the_whole_batch(
    group: Group, stage: int
) -> None:
    residuals = []
    for case in (c for c in SAME if c.stage == stage):
        wanted = expected(case, pieces=1)
        for seen in group[case]:
            close(seen["loss"], wanted["loss"], 1e-5)
            close(seen["norm"], wanted["norm"], 1e-5)
            close(seen["scores"], wanted["scores"], 1e-5)
            residuals.append(seen["loss"] - wanted["loss"])
        for name, value in group[case][0]["state"].items():
            close(value, wanted["state"][name], 1e-5)
    # A gradient that is counted twice or not at all shows as a shift to one side.
    assert abs(torch.stack(residuals).mean()) < 1e-7


def test_the_runs_are_worth_comparing() -> None:
    """The model learns and the clip bites, or equal numbers would mean nothing."""
    plain, clipped = expected(Case(0), 1), expected(Case(0, clip=CLIP), 1)
    assert plain["norm"].min() > CLIP
    moved = [(plain["state"][n] - plain["start"][n]).abs().max() for n in plain["state"]]
    assert min(moved) > RATE
    assert (plain["scores"] - clipped["scores"]).abs().max() > 1e-3
    assert (plain["scores"][0] - plain["scores"][1]).abs().max() > 1e-2


@pytest.mark.parametrize("case", UNEVEN, ids=lambda case: f"zero{case.stage}")
def test_micro_batches_may_differ_in_number_and_rows_from_step_to_step(
    group: Group, case: Case
) -> None:
    """Equal at the ranks of a step; the last batch is short."""
    cut = [list(stream(case, rank, group.world, 1)) for rank in range(group.world)]
    counts = [[len(step) for step in of_rank] for of_rank in cut]
    assert all(of_rank == counts[0] for of_rank in counts)
    assert len(set(counts[0])) > 1 and max(counts[0]) > 1
    sizes = [[[len(b.weights) for b in step] for step in of_rank] for of_rank in cut]
    assert group.world == 1 or sizes[0] != sizes[1]

    wanted = expected(case, pieces=1)
    for seen in group[case]:
        close(seen["loss"], wanted["loss"], 1e-5)
        close(seen["norm"], wanted["norm"], 1e-5)
        close(seen["scores"], wanted["scores"], 1e-5)
        assert abs((seen["loss"] - wanted["loss"]).mean()) < 1e-6
        assert seen["tokens"] == wanted["tokens"]
    for name, value in group[case][0]["state"].items():
        close(value, wanted["state"][name], 1e-5)


@pytest.mark.parametrize("case", FILLED, ids=lambda case: f"zero{case.stage}")
def test_rows_of_weight_0_change_nothing(group: Group, case: Case) -> None:
    wanted = expected(case, pieces=1)
    for seen in group[case]:
        close(seen["loss"], wanted["loss"], 1e-5)
        close(seen["norm"], wanted["norm"], 1e-5)
    for name, value in group[case][0]["state"].items():
        close(value, wanted["state"][name], 1e-5)


@pytest.mark.parametrize(
    ("case", "norm"),
    [(case, 1e-6) for case in BF16[:3]] + [(case, 2**-9) for case in (BF16[3], LORA_BF16_3)],
    ids=lambda value: f"{value.trainable}-zero{value.stage}" if isinstance(value, Case) else "",
)
def test_bf16_tracks_plain_torch(group: Group, case: Case, norm: float) -> None:
    """Cut alike, the first forward is the same, and its gradients are summed in fp32.

    ZeRO 3 alone rounds two things to bf16 (2⁻⁹) that TorchEngine does not: the gradient of an
    fp32 head among bf16 parameters, and, as its hooks group them otherwise, sums of activations'
    gradients. Later a master moves by a little more or less; where that leads across the middle
    between two bf16 numbers, a weight, and so the loss, is off by up to 2⁻⁸.
    """
    wanted = expected(case, pieces=group.world * case.pieces)
    for seen in group[case]:
        close(seen["loss"][0], wanted["loss"][0], 1e-6)
        close(seen["norm"][0], wanted["norm"][0], norm)
        close(seen["loss"], wanted["loss"], 2**-8)
    for name, value in group[case][0]["state"].items():
        way = (wanted["state"][name] - wanted["start"][name]).norm()
        assert (value - wanted["state"][name]).norm() < 0.1 * way, name


@pytest.mark.parametrize("case", FROZEN, ids=lambda case: f"{case.trainable}-zero{case.stage}")
def test_a_frozen_backbone_under_trained_fp32_parameters(group: Group, case: Case) -> None:
    wanted = expected(case, pieces=group.world)
    for seen in group[case]:
        close(seen["loss"], wanted["loss"], 1e-5)
        close(seen["norm"], wanted["norm"], 1e-5)
        close(seen["scores"], wanted["scores"], 1e-5)
    for name, value in group[case][0]["state"].items():
        close(value, wanted["state"][name], 1e-5)


@pytest.mark.parametrize("case", THRESHOLD, ids=["equal", "unequal"])
def test_the_confidence_threshold_sees_all_ranks(group: Group, case: Case) -> None:
    """Whether ranks hold equally many rows or not."""
    wanted = expected(case, pieces=1)
    for seen in group[case]:
        close(seen["loss"], wanted["loss"], 1e-5)
        assert seen["threshold"] == pytest.approx(wanted["threshold"], abs=1e-5)
        assert seen["threshold"] != 0


def test_state_is_what_is_trained_by_the_scorers_names_on_rank_0(group: Group) -> None:
    for case in CASES:
        first, *others = group[case]
        scorer, _ = model(case)
        shapes = {n: p.shape for n, p in scorer.named_parameters() if p.requires_grad}
        assert {n: t.shape for n, t in first["state"].items()} == shapes
        assert {t.dtype for t in first["state"].values()} == {torch.float32}
        assert not any(t.numel() for other in others for t in other["state"].values())


def test_frozen_parameters_are_whole_too_and_as_they_are_stored(group: Group) -> None:
    """What an export is made of; under ZeRO 3 they lie in shards."""
    for case in [*FROZEN, LORA_BF16_3]:
        first, *others = group[case]
        own = dict(model(case)[0].named_parameters())
        assert first["everything"].keys() == own.keys()
        for name, parameter in own.items():
            if not parameter.requires_grad:
                assert torch.equal(first["everything"][name], parameter), name
            else:
                assert torch.equal(first["everything"][name], first["state"][name]), name
        assert not any(t.numel() for other in others for t in other["everything"].values())


def test_state_is_what_the_engine_computes_with(group: Group) -> None:
    """Masters start as the scorer's own values, bit for bit, and give the same logits in it."""
    for case in CASES:
        seen = group[case][0]
        scorer, _ = model(case)
        own = dict(scorer.named_parameters())
        assert all(torch.equal(value, own[name].float()) for name, value in seen["begin"].items())
        load_state(scorer, seen["state"])
        close(seen["scores"][1], scores(case, scorer), 1e-6)


def test_zero_3_shards_every_matrix(group: Group) -> None:
    for seen in group["freed", 3]:
        for whole, shard, numel in seen["held"]:
            assert shard == -(-numel // group.world)
            assert whole == (numel if numel == 32 else 0)  # norms, and the head's only row


def test_gather_joins_in_the_order_of_ranks(group: Group) -> None:
    integers = torch.cat([torch.arange(6).view(3, 2) + 10 * r for r in range(group.world)])
    for whole, floats, even in group["gathered"]:
        assert torch.equal(whole, integers)
        assert torch.equal(floats, integers.float())
        assert torch.equal(even, integers[:, 0] % 2 == 0)


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_is_refused_on_every_rank(group: Group, stage: int) -> None:
    for few, infinite in group["refused", stage]:
        assert few == "RuntimeError: step before the last micro-batch"
        assert infinite.startswith("FloatingPointError: the norm of the gradient is ")


@pytest.mark.parametrize("stage", STAGES)
def test_closing_frees_memory_and_restores_torch(group: Group, stage: int) -> None:
    for seen in group["freed", stage]:
        assert not any(seen["before"].values())
        assert all(seen["after"].values())
        assert seen["restored"]


def test_deepspeed_compiles_nothing_and_says_nothing(group: Group) -> None:
    assert group.compiled == []
    assert "deepspeed" not in group.output.lower()
