"""Features and labels are computed a shard at a time, and no shard twice, whatever is killed."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from w2s_ray.models import inference
from w2s_ray.plan.build import build
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.step import Step
from w2s_ray.running.runner import execute
from w2s_ray.spec.loading import load
from w2s_ray.steps import prepare, shards
from w2s_ray.steps.context import Context
from w2s_ray.store.artifacts import Store


@pytest.fixture
def plan(write_spec, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(shards, "ROWS", 10)
    return build(
        load(write_spec(grid__trainable=["full"], grid__include=[{"trainable": ["last_layer"]}]))
    )


def run_up_to(plan: Plan, wanted: Step, store: Store) -> None:
    """Every step that ``wanted`` needs, but not itself."""
    for key in wanted.inputs.values():
        step = plan.steps[key]
        run_up_to(plan, step, store)
        execute(step, store)


class Killed(BaseException):
    """Stands for the end of the process: no handler of ours may see it."""


def counting(monkeypatch: pytest.MonkeyPatch, die_at: int | None = None) -> list[int]:
    """Rows of each shard that passes the model from now on; it dies before shard ``die_at``."""
    seen: list[int] = []
    sweep = inference.sweep

    def counted(forward, tokens, *arguments, **options):
        if len(seen) == die_at:
            raise Killed
        seen.append(len(tokens.row_ids))
        return sweep(forward, tokens, *arguments, **options)

    monkeypatch.setattr(inference, "sweep", counted)
    return seen


def step_of(plan: Plan, kind: str) -> Step:
    return next(s for s in plan if s.kind.name == kind and "features" not in s.inputs)


@pytest.mark.parametrize(("kind", "sizes"), [("features", [48, 40, 32]), ("label", [40])])
def test_a_killed_step_goes_on_at_the_next_shard(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, sizes: list[int]
) -> None:
    step = step_of(plan, kind)
    each = [min(10, size - start) for size in sizes for start in range(0, size, 10)]
    whole, broken = Store.open(tmp_path / "whole"), Store.open(tmp_path / "broken")
    for store in (whole, broken):
        run_up_to(plan, step, store)
    execute(step, whole)
    for die_at in (2, 1):
        with monkeypatch.context() as patch:
            counting(patch, die_at)
            with pytest.raises(Killed):
                execute(step, broken)
    kept = [name for name in broken.listing(f"parts/{step.key}") if name.endswith("-of-10.npy")]
    assert len(kept) == 3
    assert not broken.has(step.key)
    damaged = Path(broken.uri) / "parts" / step.key / kept[1]
    damaged.write_bytes(damaged.read_bytes()[:50])
    with monkeypatch.context() as patch:
        seen = counting(patch)
        execute(step, broken)
    assert seen == [each[1], *each[3:]]
    one, other = whole.artifact(step.key).folder, broken.artifact(step.key).folder
    for path in sorted(one.iterdir()):
        if path.name != "record.json":
            assert path.read_bytes() == (other / path.name).read_bytes()
    assert not (Path(broken.uri) / "parts" / step.key).exists()


def test_shards_change_no_number_and_progress_counts_rows(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = step_of(plan, "features")
    cut, whole = Store.open(tmp_path / "cut"), Store.open(tmp_path / "whole")
    output: list[dict[str, int]] = []
    run_up_to(plan, step, cut)
    execute(step, cut, Context(progress=output.append))
    assert [t["step"] for t in output] == sorted(t["step"] for t in output)
    assert output[-1]["step"] == output[-1]["steps"] == 120
    monkeypatch.setattr(shards, "ROWS", 1000)
    run_up_to(plan, step, whole)
    execute(step, whole)
    for split in ("ground_truth", "weak", "test"):
        one, other = (np.load(s.artifact(step.key).folder / f"{split}.npy") for s in (cut, whole))
        np.testing.assert_allclose(one, other, atol=1e-5)
    metrics = [s.record(step.key)["metrics"] for s in (cut, whole)]
    assert metrics[0]["tokens"] == metrics[1]["tokens"]


def test_a_part_is_read_across_row_groups(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "GROUP_ROWS", 16)
    step, store = step_of(plan, "features"), Store.open(tmp_path)
    run_up_to(plan, step, store)
    rows = prepare.Rows(store.artifact(step.inputs["prepare"]))
    assert pq.ParquetFile(rows.artifact.file("weak.parquet")).num_row_groups == 3
    for start, count in ((0, 16), (15, 2), (16, 16), (10, 30), (39, 1)):
        assert rows.slice("weak", start, count).equals(rows["weak"].slice(start, count))
