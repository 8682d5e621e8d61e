"""A run that is resumed is the run that was never interrupted: at any stage, at any world size.

The ranks of each group train every case with checkpoints, then go on from the first of them, since
a bit of the second has flipped: at the same world and stage bit for bit; from the files of another
world or stage to rounding.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.testing.process_groups import ProcessGroups
from tests.testing.zero_cases import (
    CLIP,
    RATE,
    STEPS,
    Case,
    close,
    engine_of,
    model,
    state_of,
    stream,
)
from w2s_ray.objectives.confidence import ThresholdBuffer
from w2s_ray.objectives.objective import Objective
from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.training.engine import Adam, Engine, TorchEngine
from w2s_ray.training.loop import train
from w2s_ray.training.resume import Checkpointer

pytestmark = pytest.mark.groups

EVERY = 3  # of 8 updates: checkpoints after 3 and 6
PLAIN = Case(-1, clip=CLIP)  # TorchEngine
ZERO = [Case(stage, clip=CLIP) for stage in (0, 1, 2, 3)]
BF16 = [Case(stage, clip=CLIP, precision="bf16") for stage in (1, 2, 3)]
OTHERS = [
    Case(2, pieces=2, precision="bf16", trainable="lora"),
    Case(3, precision="bf16", trainable="lora"),
    Case(2, per_row=1),  # the buffer of the confidence threshold is part of the state
    Case(2, clip=CLIP, offload="optimizer"),
    Case(3, clip=CLIP, precision="bf16", offload="parameters"),
]
CASES = [*ZERO, *BF16, *OTHERS]


def run(
    case: Case, engine: Engine, rank: int, world: int, store: Store, key: str, *, resumes: bool
) -> dict[str, Any]:
    """Trains with a checkpoint every 3 updates; ``resumes`` goes on from the newest in ``key``."""
    buffer = ThresholdBuffer(0.5, 16) if case.per_row == 1 else None
    checkpointer = Checkpointer(
        Checkpoints(store, key), engine, {"model": "m"}, every_updates=EVERY
    )
    curve = checkpointer.restore(buffer) if resumes else None
    start = len(curve.loss) if curve else 0
    batches: Iterator[Any] = stream(case, rank, world, case.pieces)
    for _ in range(start):
        next(batches)
    curve = train(
        engine,
        batches,
        Objective("reverse_kl", confidence_weight=0.5),
        total_steps=STEPS,
        learning_rate=RATE,
        buffer=buffer,
        curve=curve,
        checkpointer=None if resumes else checkpointer,
    )
    assert len(checkpointer.failures) == resumes, "that the second one is damaged"
    return {
        "start": start,
        "loss": torch.tensor(curve.loss),
        "norm": torch.tensor(curve.gradient_norm),
        "tokens": curve.tokens,
        "state": state_of(engine, case),
    }


def plain(case: Case, store: Store, key: str, *, resumes: bool) -> dict[str, Any]:
    scorer, parameters = model(case)
    engine = TorchEngine(scorer, parameters, Adam(clip_norm=case.clip))
    return run(case, engine, 0, 1, store, key, resumes=resumes)


def key_of(case: Case, world: int) -> str:
    numbers = f"{case.stage}w{world}{case.precision}{case.trainable}{case.per_row}{case.offload}"
    return numbers.replace("-", "p")


def with_a_damaged_second(store: Store, key: str) -> str:
    """A copy of the checkpoints of ``key``, under another key; one bit of the newest has flipped,
    in the file of the last rank."""
    other = f"{key}first"
    root = Path(store.uri) / "checkpoints"
    (root / other).mkdir(exist_ok=True)
    for file in (root / key).iterdir():
        (root / other / file.name).write_bytes(file.read_bytes())
    damaged = max((root / other).glob(f"{2 * EVERY:09}-*"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    return other


# What each rank does.


def run_straight_and_resumed(rank: int, world: int, uri: str) -> dict[Any, Any]:
    """Case -> the run without a break, and the one that goes on from its first checkpoint."""
    store, seen = Store.open(uri), {}
    for case in CASES:
        key = key_of(case, world)
        with engine_of(case) as engine:
            straight = run(case, engine, rank, world, store, key, resumes=False)
        dist.barrier()
        if rank == 0:
            with_a_damaged_second(store, key)
        dist.barrier()
        with engine_of(case) as engine:
            again = run(case, engine, rank, world, store, f"{key}first", resumes=True)
        seen[case] = (straight, again)
    return seen


def run_elsewhere(rank: int, world: int, uri: str) -> dict[Any, Any]:
    """Runs that go on from another world, another stage, or plain torch."""
    store, seen = Store.open(uri), {}
    for case, key in elsewhere(world):
        with engine_of(case) as engine:
            seen[case, key] = run(case, engine, rank, world, store, key, resumes=True)
    return seen


def elsewhere(world: int) -> list[tuple[Case, str]]:
    """Cases of a group, and whose checkpoint each goes on from."""
    other = {1: 2, 2: 1, 4: 2}[world]
    own = [*ZERO, *BF16, *OTHERS[:2]] if world < 4 else ZERO[2:]
    same = [(case, f"{key_of(case, other)}first") for case in own]
    stages = [
        (ZERO[3], f"{key_of(ZERO[1], other)}first"),
        (ZERO[1], f"{key_of(ZERO[3], other)}first"),
        (ZERO[2], f"{key_of(PLAIN, 1)}first"),
    ]
    return same + (stages if world < 4 else [])


# What pytest does.


@pytest.fixture(scope="module")
def seen(process_groups: ProcessGroups, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """(phase, world) -> by rank what was seen; "plain": straight, resumed, from ZeRO."""
    store = Store.open(tmp_path_factory.mktemp("resume") / "store")
    straight = plain(PLAIN, store, key_of(PLAIN, 1), resumes=False)
    again = plain(PLAIN, store, with_a_damaged_second(store, key_of(PLAIN, 1)), resumes=True)
    found: dict[Any, Any] = {"plain": (straight, again)}
    first = process_groups.run(run_straight_and_resumed, dict.fromkeys((1, 2), (store.uri,)))
    then = process_groups.run(run_elsewhere, dict.fromkeys((1, 2, 4), (store.uri,)))
    found |= {("first", world): ranks for world, ranks in first.items()}
    found |= {("elsewhere", world): ranks for world, ranks in then.items()}
    for case in (ZERO[1], ZERO[2], ZERO[3]):
        key = f"{key_of(case, 2)}first"
        found["plain from", case.stage] = plain(PLAIN, store, key, resumes=True)
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert torch.equal(one["loss"], other["loss"])
    assert torch.equal(one["norm"], other["norm"])
    assert one["tokens"] == other["tokens"]
    assert one["state"].keys() == other["state"].keys()
    for name, value in one["state"].items():
        assert torch.equal(value, other["state"][name]), name


def test_plain_torch_goes_on_bit_for_bit(seen: dict[Any, Any]) -> None:
    straight, again = seen["plain"]
    assert again["start"] == EVERY
    same(straight, again)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_a_group_goes_on_bit_for_bit(seen: dict[Any, Any], world: int, case: Case) -> None:
    for rank in seen["first", world]:
        straight, again = rank[case]
        assert (straight["start"], again["start"]) == (0, EVERY)
        same(straight, again)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_another_world_or_stage_goes_on(seen: dict[Any, Any], world: int) -> None:
    """To rounding: sums over other ranks are made in another order."""
    residuals = []
    for case, key in elsewhere(world):
        wanted = seen["first", min(world, 2)][0][case][0]
        for rank in seen["elsewhere", world]:
            found = rank[case, key]
            assert found["start"] == EVERY
            tolerance = 1e-5 if case.precision == "fp32" else 2**-8
            close(found["loss"], wanted["loss"], tolerance)
            if case.precision == "fp32":
                residuals.append(found["loss"] - wanted["loss"])
        if case.precision == "fp32":
            for name, value in seen["elsewhere", world][0][case, key]["state"].items():
                close(value, wanted["state"][name], 1e-5)
    assert abs(torch.stack(residuals).mean()) < 1e-6


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_one_process_goes_on_from_what_a_group_wrote(seen: dict[Any, Any], stage: int) -> None:
    found, wanted = seen["plain from", stage], seen["plain"][0]
    assert found["start"] == EVERY
    close(found["loss"], wanted["loss"], 1e-5)
    for name, value in found["state"].items():
        close(value, wanted["state"][name], 1e-5)


def test_offloaded_state_gives_the_same_numbers(seen: dict[Any, Any]) -> None:
    """Torch's Adam on the CPU is the one of the other engines."""
    for world in (1, 2):
        for rank in seen["first", world]:
            for case in OTHERS[3:]:
                wanted = rank[replace(case, offload="none")][0]
                close(rank[case][0]["loss"], wanted["loss"], 1e-6)
