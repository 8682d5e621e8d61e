"""A training job on several processes: a Ray Train worker group, DeepSpeed, and Ray Data.

Called by a step that runs in a Tune trial. The trial tokenises once, puts the tokens into the
object store and waits; every worker trains on its own stream, and rank 0 hands its files back as a
checkpoint, which works on any storage. Only the storage and the model's source must be visible
from all machines.

A worker that dies ends its group, and the group is started again. Train could do that itself, but
it would also repeat errors of the step. The run has a stable name, so that whatever an earlier try
left behind is found and removed: until jobs can be resumed, nothing of it is worth keeping.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.exceptions import RayActorError
from ray.train import Checkpoint, DataConfig
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.train.v2.api.result import Result
from ray.train.v2.torch.torch_trainer import TorchTrainer

from w2s_ray.cluster.process import use_only
from w2s_ray.data.labels import as_matrix
from w2s_ray.data.stream import MicroBatch, in_order, optimizer_steps, put, rank_dataset
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.models.tokenizer import load_tokenizer
from w2s_ray.store.addresses import child, remove_scratch
from w2s_ray.training.engine import Batch
from w2s_ray.training.job import TrainJob, fit
from w2s_ray.training.loop import Progress

RETRIES = 2  # of a group of which a process died
POLL_SECONDS = 0.2
NOTES_SECONDS = 0.5

ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a finished group is noticed
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",  # an autoscaler may have to start machines
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a lost worker is noticed without it
}

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
            Exception: what a worker raised; of a process that died too often, RayActorError.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        tokens = encode(job.rows, load_tokenizer(job.model), job.max_length_tokens)
        trainer = self._trainer(job, tokens)
        for attempt in range(1 + RETRIES):
            self._remove(job)
            try:
                result: Result = _in_thread(trainer.fit)
            except WorkerGroupError as error:
                cause = _cause(error)
                if not isinstance(cause, RayActorError) or attempt == RETRIES:
                    raise cause from None
            else:
                break
        assert result.checkpoint is not None
        assert result.return_value is not None
        result.checkpoint.to_directory(out)
        self._remove(job)
        return {**result.return_value, "truncated_rows": tokens.truncated}

    def _trainer(self, job: TrainJob, tokens: Tokens) -> TorchTrainer:
        workers = int(job.execution["workers"])
        source = put(tokens, as_matrix(job.rows["probs"]))
        resources = {"CPU": float(job.execution["cpus_per_worker"])}
        if gpus := float(job.execution["gpus_per_worker"]):
            resources["GPU"] = gpus
        return TorchTrainer(
            _work,
            train_loop_config={"job": job, "note": self.note},
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=job.name,
                storage_path=self.storage,
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=RETRIES),
            ),
            datasets={
                f"rank{rank}": rank_dataset(
                    tokens,
                    source,
                    seed=job.seed,
                    epochs=job.epochs,
                    batch_size=job.batch_size,
                    token_budget=job.token_budget,
                    rank=rank,
                    world=workers,
                )
                for rank in range(workers)
            },
            dataset_config=DataConfig(datasets_to_split=[], execution_options=in_order()),
        )

    def _remove(self, job: TrainJob) -> None:
        remove_scratch(child(self.storage, job.name))


def _work(config: dict[str, Any]) -> dict[str, Any]:
    """What every worker runs."""
    from w2s_ray.training.deepspeed_engine import DeepSpeedEngine

    job: TrainJob = config["job"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    use_only(float(job.execution["cpus_per_worker"]), float(job.execution["gpus_per_worker"]))
    with tempfile.TemporaryDirectory() as folder:
        metrics = fit(
            job,
            Path(folder),
            make_engine=partial(DeepSpeedEngine, zero_stage=int(job.execution["zero_stage"])),
            stream=_stream(rank),
            progress=_sparingly(config["note"]) if rank == 0 else lambda numbers: None,
        )
        ray.train.report({}, checkpoint=Checkpoint(folder) if rank == 0 else None)
    return metrics


def _stream(rank: int) -> Iterator[list[Batch]]:
    shard = ray.train.get_dataset_shard(f"rank{rank}")
    blocks = shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    return map(_batches, optimizer_steps(blocks))


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
    """The death of a process if there was one (the other errors follow from it), else the error of
    the first rank that has one."""
    causes = [
        getattr(failure, "health_check_failure", failure)
        for _, failure in sorted(error.worker_failures.items())
    ]
    died = [cause for cause in causes if isinstance(cause, RayActorError)]
    cause: Exception = [*died, *causes][0]
    return cause
