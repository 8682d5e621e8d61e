"""Whole studies whose groups are committed as bundles, and the tables that a second run keeps."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from w2s_ray.plan.build import build
from w2s_ray.running import runner
from w2s_ray.spec.loading import load
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

# What a record says of how a step was run.
OF_RUN = (
    "seconds", "peak_memory_bytes", "train_seconds", "tokens_per_second", "per_second", "fused",
)  # fmt: skip
CONTENTS = (
    "test.parquet", "curve.parquet", "validation.parquet", "train.parquet",
    "soft_labels.parquet", "step_logits.npy", "head.safetensors",
)  # fmt: skip
SIXTEEN = {
    "grid__loss": ["forward_ce", "reverse_kl"],
    "grid__seed": [0, 1],
    "grid__confidence_weight": [0.0, 0.5],
}


def plan_of(spec):
    return build(load(spec))


def rows(root):
    return pq.read_table(root / "results").to_pylist()


@pytest.mark.long
def test_a_bundle_holds_what_folders_of_their_own_hold_bit_for_bit(
    write_spec, tmp_path, monkeypatch
):
    """Two studies of the same steps, of which one commits all groups as bundles."""
    spec = write_spec(
        **SIXTEEN,
        grid__example_weight=["none", "confidence"],
        grid__label_temperature=[1.0, 0.5],
        validation={"rows": 8},
        training__evaluations=3,
    )
    stores = {}
    for name, smallest in (("single", 10**9), ("bundled", 2)):
        monkeypatch.setattr(runner, "SMALLEST_BUNDLE", smallest)
        assert main([str(spec), "--local", "--no-report", "--store", str(tmp_path / name)]) == 0
        stores[name] = Store.open(tmp_path / name)
    plan = plan_of(spec)
    in_bundles = {key for key, path in stores["bundled"].finished().items() if "/@" in path}
    assert {plan.steps[key].kind.name for key in in_bundles} == {
        "weak", "label", "ceiling", "student", "evaluate",
    }  # fmt: skip
    assert not any("/@" in path for path in stores["single"].finished().values())
    opened = [store.artifacts(plan.steps) for store in (stores["single"], stores["bundled"])]
    for step in plan:
        ours, theirs = (artifacts(step.key) for artifacts in opened)
        same = [
            {k: v for k, v in a.record["metrics"].items() if k not in OF_RUN}
            for a in (ours, theirs)
        ]
        assert same[0] == same[1]
        assert ours.record.keys() - {"files", "digests"} <= theirs.record.keys()
        for name in CONTENTS:
            assert ours.has(name) == theirs.has(name)
            if ours.has(name) and name.endswith(".parquet"):
                assert ours.table(name).equals(theirs.table(name)), name
            elif ours.has(name) and name.endswith(".npy"):
                np.testing.assert_array_equal(ours.array(name), theirs.array(name))
            elif ours.has(name):
                left, right = ours.tensors(name), theirs.tensors(name)
                assert left.keys() == right.keys()
                assert all(np.array_equal(left[tensor], right[tensor]) for tensor in left)
    for table in ("results", "predictions", "train_predictions"):
        left, right = (pq.read_table(tmp_path / name / table / "tiny.parquet") for name in stores)
        kept = [name for name in left.column_names if name not in OF_RUN]
        assert left.select(kept).equals(right.select(kept)), table


def test_a_study_takes_from_a_bundle_what_it_shares(write_spec, tmp_path):
    assert main([str(write_spec(**SIXTEEN)), "--local", "--no-report"]) == 0
    store = Store.open(tmp_path / "store")
    before = store.records(store.finished())
    larger = write_spec(**{**SIXTEEN, "grid__seed": [0, 1, 2]})
    assert main([str(larger), "--local", "--no-report"]) == 0
    after = store.records(store.finished())
    assert before.items() <= after.items() and len(after) > len(before)
    assert len(rows(tmp_path / "store")) == 24


def test_a_second_run_keeps_the_tables_and_one_that_was_edited_is_written_again(
    write_spec, tmp_path
):
    spec, folder = write_spec(**SIXTEEN), tmp_path / "store"
    assert main([str(spec), "--local", "--no-report"]) == 0
    tables = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.parquet")}
    assert len(tables) == 3
    assert main([str(spec), "--local", "--no-report"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tables} == tables
    edited = folder / "results" / "tiny.parquet"
    content = bytearray(edited.read_bytes())
    content[len(content) // 2] ^= 1
    edited.write_bytes(content)
    store = Store.open(folder)
    cells = folder / "studies" / "tiny.json"
    for damage in (lambda: None, cells.unlink, lambda: store.record_failure(a_failure(spec), "x")):
        damage()
        assert main([str(spec), "--local", "--no-report"]) == 0
        assert cells.exists() and len(rows(folder)) == 16
    assert edited.read_bytes() != bytes(content)


def a_failure(spec):
    """A step that is not one of the study's."""
    return replace(next(iter(plan_of(spec))), key="0" * 20).identity
