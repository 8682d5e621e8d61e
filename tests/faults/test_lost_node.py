"""A ZeRO-3 student over two hosts loses one of them and ends as if it had not.

What it would have been is trained by a process group of the same size, without Ray.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from tests.testing import lost_node
from tests.testing.process_groups import ProcessGroups
from tests.testing.specs import REPOSITORY
from w2s_ray.capacity.execution import Execution
from w2s_ray.data.batches import epoch_order, micro_batches, optimizer_batches
from w2s_ray.data.tokens import encode
from w2s_ray.models.tokenizer import bytes_tokenizer
from w2s_ray.store.artifacts import Store
from w2s_ray.training.engine import Batch
from w2s_ray.training.fit import fit
from w2s_ray.training.job import TrainJob, token_batch

# Groups are started, a host is lost: minutes, more beside others.
pytestmark = [pytest.mark.ray, pytest.mark.groups, pytest.mark.timeout(1200)]


def stream(job: TrainJob, rank: int, world: int, start: int) -> Iterator[list[Batch]]:
    """What Ray Data streams to a rank, made here."""
    assert start == 0
    tokens = encode(job.rows, bytes_tokenizer(), job.max_length_tokens)
    labels = torch.from_numpy(job.soft_labels)
    for epoch in range(job.epochs):
        order = epoch_order(tokens.row_ids, job.seed, epoch)
        for batch in optimizer_batches(order, job.batch_size):
            yield [
                token_batch(tokens, rows, labels[rows], weights)
                for rows, weights in micro_batches(
                    batch, tokens.row_lengths, job.token_budget, rank, world
                )
            ]


def train_without_a_loss(rank: int, world: int, folder: Path) -> None:
    """One rank's part of the run that keeps its hosts; rank 0 leaves the files."""
    from w2s_ray.training.deepspeed_engine import engine_options

    job = lost_node.job_of("straight", folder, Execution(**lost_node.EXECUTION))
    out = folder / f"straight{rank}"
    out.mkdir()
    options = engine_options(job.execution, job.name)
    fit(job, out, **options, rank=rank, stream=partial(stream, job, rank, world))


class Outcome(NamedTuple):
    """What the program said, and where its model and store are."""

    events: dict[str, Any]
    folder: Path

    @property
    def store(self) -> Store:
        return Store.open(self.folder / "store")


def outcome_of(student: str, folder: Path) -> Outcome:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "1000",  # a lost host is noticed in 5 s, not in 15
    }
    ended = subprocess.run(
        [sys.executable, lost_node.__file__, str(folder), student],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1100,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    events = json.loads(ended.stdout.splitlines()[-1])
    assert events["failed"] == {}
    return Outcome(events, folder)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return outcome_of("replaced", tmp_path_factory.mktemp("faults"))


class Trained(NamedTuple):
    loss: Any
    weights: dict[str, Any]


def trained(folder: Path) -> Trained:
    loss = pq.read_table(folder / "curve.parquet")["loss"].to_numpy()
    return Trained(loss, load_file(folder / "model.safetensors"))


@pytest.fixture(scope="module")
def straight(outcome: Outcome, process_groups: ProcessGroups) -> Trained:
    """The run of two ranks that loses nothing."""
    process_groups.run(train_without_a_loss, {2: (outcome.folder,)})
    return trained(outcome.folder / "straight0")


def test_a_host_that_is_lost_and_replaced_costs_no_bit(outcome: Outcome, straight: Trained) -> None:
    assert "replaced" in outcome.events["lost"]
    artifact = outcome.store.artifact("replaced")
    metrics, again = artifact.record["metrics"], trained(artifact.folder)
    assert metrics["checkpoints"]["resumed_at"] >= 2
    assert metrics["workers"] == 2
    np.testing.assert_array_equal(straight.loss, again.loss)
    assert straight.weights.keys() == again.weights.keys()
    for name, tensor in straight.weights.items():
        np.testing.assert_array_equal(tensor, again.weights[name])


@pytest.mark.slow
def test_training_goes_on_with_the_hosts_that_are_left_and_in_less_memory(
    tmp_path: Path, straight: Trained
) -> None:
    """The run also begins with passes that do not fit: two workers, then one, the same numbers."""
    outcome = outcome_of("fewer", tmp_path)
    assert "fewer" in outcome.events["lost"]
    artifact = outcome.store.artifact("fewer")
    metrics, again = artifact.record["metrics"], trained(artifact.folder)
    assert metrics["checkpoints"]["resumed_at"] >= 2
    assert metrics["workers"] == 1
    assert metrics["out_of_memory"] >= 1
    np.testing.assert_allclose(again.loss, straight.loss, atol=1e-5)
    for name, tensor in straight.weights.items():
        np.testing.assert_allclose(again.weights[name], tensor, atol=1e-5)


def test_what_no_host_could_hold_is_refused(outcome: Outcome) -> None:
    assert "needs 1 CPU and 1 GPU for each of 4 processes" in outcome.events["refused"]


def test_nothing_is_left_behind(outcome: Outcome) -> None:
    assert list(outcome.folder.glob("store/.ray/*/*")) == []
