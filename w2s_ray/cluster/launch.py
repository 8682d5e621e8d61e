"""A training job on several processes: a Ray Train worker group, DeepSpeed, and Ray Data.

Called by a step that runs in a Tune trial. For rows of a data set the trial tokenises once, puts
the tokens into the object store and waits; no worker is sent a text. Every worker streams its own
part of the batches. A job on text travels whole, and every worker makes its part of the batches.
Rank 0 returns its files as a checkpoint of Ray Train, which works on any storage. Only the storage
and the model's source must be visible from all machines.

A worker that dies ends its group, and the group restarts, with fewer workers if the spec allows it;
on OOM the group restarts with a smaller micro-batch. Train could retry a group itself, but it would
also retry errors of the step. The job resumes from its checkpoints in the store
(``training.resume``) at any size of the group. Train's folder of the run has a stable name, so that
files of an earlier attempt are overwritten or removed.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.exceptions import RayActorError
from ray.train import Checkpoint, WorkerGroupError
from ray.train.torch import TorchConfig
from safetensors.torch import load_file

from w2s_ray.cluster.background import in_thread
from w2s_ray.cluster.environment import TRAIN, set_defaults
from w2s_ray.cluster.placement import cluster_nodes, need_of
from w2s_ray.cluster.process import machine_cpus, use_only
from w2s_ray.cluster.ray_internals import (
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
    TorchBackend,
    TorchTrainer,
    draining_nodes,
)
from w2s_ray.cluster.threads import running
from w2s_ray.data.stream import (
    MicroBatch,
    Source,
    in_order,
    optimizer_steps,
    put,
    rank_dataset,
)
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.store.addresses import child, remove_scratch
from w2s_ray.training.engine import Batch
from w2s_ray.training.fit import fit
from w2s_ray.training.fit_text import fit_text
from w2s_ray.training.job import TrainJob, rows_to_train_on
from w2s_ray.training.oom_retry import with_smaller_micro_batch
from w2s_ray.training.outputs import counts_of
from w2s_ray.training.progress import Progress, Throttle
from w2s_ray.training.text_job import TextJob

RETRIES = 2  # of a group that lost a process before it wrote a new checkpoint
# Messages of gloo and NCCL in a worker whose peer is gone.
LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
DRAIN_SECONDS = 5.0  # between two checks whether this machine is being drained
NOTES_SECONDS = 0.5

# How long a group waits for its resources, and how often before the step fails. A fixed group may
# need an autoscaler to start machines. The size of an elastic group is chosen from Ray's view of
# the cluster, which may be 20 s old: it may wait for a machine that is gone, and has to try again.
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
START_SECONDS = {"fixed": "600", "elastic": "30"}
START_ATTEMPTS = {"fixed": 3, "elastic": 120}

Note = Callable[[dict[str, Any]], object]


class HungGroup(RuntimeError):
    """No worker of a group went on, as Ray's hang detector found."""

    def __init__(self, found: WorkerGroupError) -> None:
        detail = str(found).partition("\n")[2].partition(". ")[0]
        super().__init__(f"the workers hung: {detail}; Ray's log of the run has their stacks")


@dataclass(frozen=True)
class WorkerGroup:
    """Trains jobs on several workers; its ``fit`` is that of a step's context.

    Attributes:
        storage: URI under which Train stores a run while it lasts.
        note: takes the progress of the first worker; called in that worker.
        join: takes the actor of the first worker, as soon as it runs; called there too.
        threads: of each worker; None: its share of its machine's CPUs.
    """

    storage: str
    note: Note
    join: Callable[[Any], object]
    threads: int | None = None

    def fit(self, job: TrainJob | TextJob, out: Path, progress: Progress) -> dict[str, Any]:
        """Trains ``job``, writes its files into ``out`` and returns its metrics.

        ``progress`` is not called: progress comes from another process, through ``note``.

        Raises:
            Exception: the error of a worker; the loss of a worker, if that happened too often.
            KeyboardInterrupt: the workers were asked to end early, and have saved their state.
        """
        set_defaults(TRAIN)
        given: dict[str, Any] = {}  # what workers take out of the object store, beside the job
        counts: dict[str, int] = {}
        if isinstance(job, TrainJob):
            tokenizer = load_tokenizer(job.model)
            tokens = job.encoded(job.rows, tokenizer)
            counts = counts_of(tokens)
            job, tokens = rows_to_train_on(job, tokens)
            given["source"] = put(tokens, job.soft_labels)
            given["scored"] = ray.put(job.scored_tokens(tokenizer))
            job = job.without_texts()
        elif isinstance(job.initial, Path):  # a file of this machine
            given["initial"] = ray.put(load_file(job.initial))
        saved_update, losses = 0, 0
        while True:
            self._remove(job)
            try:
                result: Result = in_thread(self._trainer(job, given).fit, "worker-group")
                break
            except WorkerGroupError as error:
                cause = _cause(error)
            if _is_lost_worker(cause):
                before, saved_update = saved_update, _saved_update(job)
                losses = 0 if saved_update > before else losses + 1
                if losses > RETRIES:
                    raise cause
            else:
                job = with_smaller_micro_batch(job, cause)
        if result.return_value is None:
            self._remove(job)
            raise KeyboardInterrupt
        assert result.checkpoint is not None
        result.checkpoint.to_directory(out)
        self._remove(job)
        return {**result.return_value, **counts}

    def _trainer(self, job: TrainJob | TextJob, given: dict[str, Any]) -> TorchTrainer:
        need = need_of(job.execution, cluster_nodes())
        workers = need.workers
        min_workers = job.execution.min_workers or workers
        size = "elastic" if min_workers < workers else "fixed"
        os.environ[START_TIMEOUT] = START_SECONDS[size]
        return TorchTrainer(
            _work,
            train_loop_config={
                **given,
                "job": ray.put(job),
                "note": self.note,
                "join": self.join,
                "threads": self.threads,
            },
            scaling_config=ScalingConfig(
                num_workers=(min_workers, workers) if size == "elastic" else workers,
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
                    controller_failure_limit=START_ATTEMPTS[size] - 1,
                ),
            ),
        )

    def _remove(self, job: TrainJob | TextJob) -> None:
        remove_scratch(child(self.storage, job.name))


def _saved_update(job: TrainJob | TextJob) -> int:
    """Optimizer steps in the newest checkpoint; 0 if there is none."""
    checkpoint = job.checkpoints.latest() if job.checkpoints else None
    return checkpoint.update if checkpoint else 0


class _GroupBackend(TorchBackend):
    """Connects workers by NCCL if they see GPUs, else by gloo."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        on_gpu = worker_group.execute_single(0, torch.cuda.is_available)
        backend = "nccl" if on_gpu else "gloo"
        super().on_start(worker_group, replace(backend_config, backend=backend))


class _Group(TorchConfig):
    """Train's configuration with that backend."""

    @property
    def backend_cls(self) -> type[_GroupBackend]:
        return _GroupBackend


def _work(config: dict[str, Any]) -> dict[str, Any] | None:
    """Trains the job in one worker; every worker runs this. None: it was asked to end early."""
    from w2s_ray.training.deepspeed_engine import engine_options

    job: TrainJob | TextJob = ray.get(config["job"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    if rank == 0:
        config["join"](ray.get_runtime_context().current_actor)
    execution = job.execution
    use_only(execution.cpus_per_worker, execution.gpus_per_worker, config["threads"])
    if config["threads"] is None:  # not by what runs: a group of one size computes the same
        torch.set_num_threads(max(1, machine_cpus() // context.get_local_world_size()))
    with running(), suppress(KeyboardInterrupt), tempfile.TemporaryDirectory() as folder:
        options = engine_options(execution, job.name)
        options["preempted"] = _DrainWatch().node_is_draining
        options["progress"] = _Throttled(config["note"]) if rank == 0 else lambda numbers: None
        if isinstance(job, TextJob):
            if "initial" in config:
                job = replace(job, initial=lambda: ray.get(config["initial"]))
            metrics = fit_text(job, Path(folder), rank=rank, **options)
        else:
            metrics = fit(
                job,
                Path(folder),
                rank=rank,
                stream=partial(_stream, job, config["source"], rank, world),
                scored=ray.get(config["scored"]),
                **options,
            )
        ray.train.report({}, checkpoint=Checkpoint(folder) if rank == 0 else None)
        return metrics
    return None


def _stream(
    job: TrainJob, source: Source, rank: int, world: int, start: int
) -> Iterator[list[Batch]]:
    """This rank's batches from optimizer step ``start`` on.

    The data set is made here, not by the trainer, since a group may restart with another number of
    workers.
    """
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
        row_weights=job.weights,
    )
    dataset.context.execution_options = in_order()
    blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    return map(_batches, optimizer_steps(blocks))


class _DrainWatch:
    """Checks now and then whether this worker's machine is being drained.

    A spot instance that is reclaimed is drained, and so is a machine that the autoscaler removes.
    """

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._checked, self._draining = 0.0, False

    def node_is_draining(self) -> bool:
        """The answer of the last check, which is at most ``DRAIN_SECONDS`` old."""
        if time.monotonic() - self._checked > DRAIN_SECONDS:
            self._checked = time.monotonic()
            self._draining = self._node in draining_nodes()
        return self._draining


def _batches(step: Iterable[MicroBatch]) -> list[Batch]:
    """The micro-batches of one optimizer step as tensors; filler rows do not count as tokens."""
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


class _Throttled:
    """Passes progress on at most once in ``NOTES_SECONDS``, the first numbers at once."""

    def __init__(self, note: Note) -> None:
        self._note, self._throttle = note, Throttle(NOTES_SECONDS, at_once=True)

    def __call__(self, numbers: dict[str, Any]) -> None:
        if self._throttle.due():
            self._note(numbers)


def _cause(error: WorkerGroupError) -> Exception:
    """The death of a process if there was one, else the first rank's own error.

    When one rank fails, the others raise that they lost their connection to it. Where Ray's hang
    detector ended the group, no worker has an error.
    """
    if not error.worker_failures:
        return HungGroup(error)
    causes: list[Exception] = [
        getattr(failure, "health_check_failure", failure)
        for _, failure in sorted(error.worker_failures.items())
    ]
    return min(
        causes, key=lambda cause: (not isinstance(cause, RayActorError), _is_lost_worker(cause))
    )


def _is_lost_worker(cause: Exception) -> bool:
    """Whether a worker or its machine was lost: it died, a peer noticed before Ray did, or none of
    them went on."""
    if isinstance(cause, RayActorError | torch.distributed.DistError | HungGroup):
        return True
    return isinstance(cause, RuntimeError) and any(text in str(cause) for text in LOST_PEER)
