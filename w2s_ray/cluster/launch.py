"""A training job on several processes: a Ray Train worker group, DeepSpeed, and Ray Data.

Called by a step that runs in a Tune trial. The trial tokenises once, puts the tokens into the
object store and waits; every worker streams its own part of the batches, and rank 0 hands its files
back as a checkpoint of Train's, which works on any storage. Only the storage and the model's source
must be visible from all machines.

A worker that dies ends its group, and the group is started again, where the spec allows it with
fewer workers; memory that runs out starts it again with shorter passes. Train could repeat a group
itself, but it would also repeat errors of the step. The job finds its own state in the store
(``training.resume``), whatever the size of the group; Train's folder of the run has a stable
name, so that what an earlier try left behind is found and removed.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.exceptions import RayActorError
from ray.train import Checkpoint, WorkerGroupError
from ray.train.torch import TorchConfig

from w2s_ray.cluster.environment import TRAIN, set_defaults
from w2s_ray.cluster.placement import cluster_nodes, need_of
from w2s_ray.cluster.process import use_only
from w2s_ray.cluster.ray_internals import (
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
    TorchBackend,
    TorchTrainer,
    draining_nodes,
)
from w2s_ray.data.labels import as_matrix
from w2s_ray.data.stream import (
    MicroBatch,
    Source,
    in_order,
    optimizer_steps,
    put,
    rank_dataset,
)
from w2s_ray.data.tokens import encode
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.store.addresses import child, remove_scratch
from w2s_ray.training.engine import Batch
from w2s_ray.training.job import TrainJob, fit
from w2s_ray.training.loop import Progress
from w2s_ray.training.oom_retry import halved

RETRIES = 2  # of a group of which a process died before it came to a new checkpoint
# What gloo and NCCL say in a worker whose peer is gone.
LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
DRAIN_SECONDS = 5.0  # between two looks whether this machine is about to be taken away
POLL_SECONDS = 0.2
NOTES_SECONDS = 0.5

# How long a group waits for its resources. A fixed one may need an autoscaler to start machines.
# The size of an elastic one is chosen from what Ray knows of the cluster, which may be 20 s old: it
# may wait for a machine that is gone, and then looks again.
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
START_SECONDS = {"fixed": "600", "elastic": "30"}
LOOKS = {"fixed": 3, "elastic": 120}  # before the step fails

Note = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class WorkerGroup:
    """Trains jobs on several workers; ``fit`` is what a step's context wants.

    Attributes:
        storage: URI under which Train keeps a run while it lasts.
        note: takes the numbers that the first worker tells; called in that worker.
    """

    storage: str
    note: Note

    def fit(self, job: TrainJob, out: Path, progress: Progress) -> dict[str, Any]:
        """Trains ``job``, leaves its files in ``out`` and returns its metrics.

        ``progress`` stays silent: the numbers come from another process, through ``note``.

        Raises:
            Exception: what a worker raised; where one was lost too often, what told of it.
        """
        set_defaults(TRAIN)
        tokens = encode(job.rows, load_tokenizer(job.model), job.max_length_tokens)
        source = put(tokens, as_matrix(job.rows["probs"]))
        came_to, lost = 0, 0
        while True:
            self._remove(job)
            try:
                result: Result = _in_thread(self._trainer(job, source).fit)
                break
            except WorkerGroupError as error:
                cause = _cause(error)
            if _lost(cause):
                before, came_to = came_to, _checkpoint(job)
                lost = 0 if came_to > before else lost + 1
                if lost > RETRIES:
                    raise cause
            else:
                job = halved(job, cause)
        assert result.checkpoint is not None
        assert result.return_value is not None
        result.checkpoint.to_directory(out)
        self._remove(job)
        return {**result.return_value, "truncated_rows": tokens.truncated}

    def _trainer(self, job: TrainJob, source: Source) -> TorchTrainer:
        need = need_of(job.execution, cluster_nodes())
        workers = need.workers
        fewest = job.execution.get("min_workers") or workers
        size = "elastic" if fewest < workers else "fixed"
        os.environ[START_TIMEOUT] = START_SECONDS[size]
        return TorchTrainer(
            _work,
            # The rows go through the object store, as tokens.
            train_loop_config={"job": job, "source": source, "note": self.note},
            scaling_config=ScalingConfig(
                num_workers=(fewest, workers) if size == "elastic" else workers,
                use_gpu=need.gpus > 0,
                resources_per_worker=need.process,
            ),
            torch_config=_Group(),
            run_config=RunConfig(
                name=job.name,
                storage_path=self.storage,
                failure_config=FailureConfig(
                    max_failures=0,
                    max_preemption_failures=0,
                    controller_failure_limit=LOOKS[size] - 1,
                ),
            ),
        )

    def _remove(self, job: TrainJob) -> None:
        remove_scratch(child(self.storage, job.name))


def _checkpoint(job: TrainJob) -> int:
    """Updates that the newest checkpoint has behind it."""
    found = job.checkpoints.latest() if job.checkpoints else None
    return found.update if found else 0


class _GroupBackend(TorchBackend):
    """Joins workers by NCCL where they really see GPUs, else by gloo."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        on_gpu = worker_group.execute_single(0, torch.cuda.is_available)
        backend = "nccl" if on_gpu else "gloo"
        super().on_start(worker_group, replace(backend_config, backend=backend))


class _Group(TorchConfig):
    @property
    def backend_cls(self) -> type[_GroupBackend]:
        return _GroupBackend


def _work(config: dict[str, Any]) -> dict[str, Any]:
    """What every worker runs."""
    from w2s_ray.training.deepspeed_engine import engine_options

    job: TrainJob = config["job"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    use_only(float(job.execution["cpus_per_worker"]), float(job.execution["gpus_per_worker"]))
    with tempfile.TemporaryDirectory() as folder:
        metrics = fit(
            job,
            Path(folder),
            **engine_options(job.execution, job.name),
            rank=rank,
            stream=partial(_stream, job, config["source"], rank, world),
            hurry=_taken_away(),
            progress=_sparingly(config["note"]) if rank == 0 else lambda numbers: None,
        )
        ray.train.report({}, checkpoint=Checkpoint(folder) if rank == 0 else None)
    return metrics


def _stream(
    job: TrainJob, source: Source, rank: int, world: int, start: int
) -> Iterator[list[Batch]]:
    """This rank's batches from optimizer step ``start`` on. The data set is made here, not by the
    trainer, since a group may come back with another number of workers."""
    if start == job.total_steps:
        return iter(())
    dataset = rank_dataset(
        source,
        seed=job.seed,
        epochs=job.epochs,
        batch_size=job.batch_size,
        token_budget=job.token_budget,
        rank=rank,
        world=world,
        start=start,
    )
    dataset.context.execution_options = in_order()
    blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    return map(_batches, optimizer_steps(blocks))


def _taken_away() -> Callable[[], bool]:
    """A look at whether this worker's machine is being drained (a spot instance that is reclaimed,
    or one that the autoscaler ends)."""
    node = ray.get_runtime_context().get_node_id()
    looked, found = 0.0, False

    def look() -> bool:
        nonlocal looked, found
        if time.monotonic() - looked > DRAIN_SECONDS:
            looked = time.monotonic()
            found = node in draining_nodes()
        return found

    return look


def _batches(step: Iterable[MicroBatch]) -> list[Batch]:
    """As tensors; rows of weight 0 only fill places and do not count as tokens."""
    return [
        Batch(
            inputs={
                "input_ids": torch.from_numpy(micro_batch.input_ids),
                "segments": torch.from_numpy(micro_batch.segments),
            },
            soft_labels=torch.from_numpy(micro_batch.soft_labels),
            weights=torch.from_numpy(weights),
            tokens=int(micro_batch.segments[weights > 0].sum()),
        )
        for micro_batch in step
        for weights in [micro_batch.weights]
    ]


def _sparingly(note: Note) -> Progress:
    """Passes on the first numbers and then some twice a second."""
    last = 0.0

    def progress(numbers: dict[str, Any]) -> None:
        nonlocal last
        if time.monotonic() - last > NOTES_SECONDS:
            last = time.monotonic()
            note(numbers)

    return progress


def _in_thread(work: Callable[[], Any]) -> Any:
    """``work()`` in a thread of its own, so that the caller can be interrupted while it waits.

    An interrupted caller leaves the thread behind; the worker group ends with this process.
    """
    outcome: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="worker-group", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
    if errors:
        raise errors[0]
    return outcome[0]


def _cause(error: WorkerGroupError) -> Exception:
    """The death of a process if there was one, else the error of the first rank that has one of its
    own: where one rank fails, the others lose their connection to it."""
    causes: list[Exception] = [
        getattr(failure, "health_check_failure", failure)
        for _, failure in sorted(error.worker_failures.items())
    ]
    return min(causes, key=lambda cause: (not isinstance(cause, RayActorError), _lost(cause)))


def _lost(cause: Exception) -> bool:
    """Whether a worker, or its machine, was lost: it died, or a peer noticed before Ray did."""
    if isinstance(cause, RayActorError | torch.distributed.DistError):
        return True
    return isinstance(cause, RuntimeError) and any(words in str(cause) for words in LOST_PEER)
