"""A ZeRO-3 student over two hosts loses one of them and ends as if it had not."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tests.cluster.test_launch import job
from tests.conftest import REPOSITORY
from w2s_ray.spec.schema import ModelSpec
from w2s_ray.store.artifacts import Store
from w2s_ray.training.fit import fit

# Eight groups are started: minutes, more beside others.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("faults")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    program = Path(__file__).with_name("lost_node.py")
    ended = subprocess.run(
        [sys.executable, str(program), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1100,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    events = json.loads(ended.stdout.splitlines()[-1])
    assert events["failed"] == {}
    return Store.open(folder / "store"), events


def trained(store: Store, key: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Losses, weights, metrics."""
    artifact = store.artifact(key)
    loss = pq.read_table(artifact.folder / "curve.parquet")["loss"].to_numpy()
    return loss, load_file(artifact.folder / "model.safetensors"), artifact.record["metrics"]


def alone(store: Store) -> Any:
    """Losses of one process without Ray."""
    out = Path(store.uri).parent / "alone"
    out.mkdir()
    fit(replace(job("alone", {}), model=ModelSpec(source=str(out.with_name("model")))), out)
    return pq.read_table(out / "curve.parquet")["loss"].to_numpy()


def test_a_host_that_is_lost_and_replaced_costs_no_bit(told: Any) -> None:
    store, events = told
    assert "replaced" in events["lost"]
    loss, weights, metrics = trained(store, "straight")
    assert metrics["checkpoints"]["resumed_at"] == 0
    np.testing.assert_allclose(loss, alone(store), atol=1e-5)
    again, same, resumed = trained(store, "replaced")
    assert resumed["checkpoints"]["resumed_at"] >= 2
    assert resumed["workers"] == 2
    np.testing.assert_array_equal(loss, again)
    assert weights.keys() == same.keys()
    for name, tensor in weights.items():
        np.testing.assert_array_equal(tensor, same[name])


def test_training_goes_on_with_the_hosts_that_are_left_and_in_less_memory(told: Any) -> None:
    """The run also begins with passes that do not fit: two workers, then one, the same numbers."""
    store, events = told
    assert "fewer" in events["lost"]
    loss, weights, _ = trained(store, "straight")
    again, close, resumed = trained(store, "fewer")
    assert resumed["checkpoints"]["resumed_at"] >= 2
    assert resumed["workers"] == 1
    assert resumed["out_of_memory"] >= 1
    np.testing.assert_allclose(again, loss, atol=1e-5)
    for name, tensor in weights.items():
        np.testing.assert_allclose(close[name], tensor, atol=1e-5)


def test_what_no_host_could_hold_is_refused(told: Any) -> None:
    _, events = told
    assert "needs 1 CPU and 1 GPU for each of 4 processes" in events["refused"]


def test_nothing_is_left_behind(told: Any) -> None:
    store, _ = told
    assert list(Path(store.uri).glob(".ray/*/*")) == []
