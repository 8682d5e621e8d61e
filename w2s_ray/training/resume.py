"""Resuming a run: its state is checkpointed while it trains and restored by the next attempt.

One format for every engine: each rank writes a file with the fragments that it holds (a stretch of
a flat parameter: its fp32 master and both moments), named by parameter and offset. A reader asks
for stretches, whichever rank wrote them. At the same world size and ZeRO stage each rank reads its
own bytes back and resumes bit for bit, on a CPU with as many threads as before; another world size,
another stage or a single process reads across files. Nothing is converted, and no process holds
more than one parameter beside its shard.

All ranks agree whether a checkpoint is due (``loop.train`` sums their answers), since their clocks
may differ, and so they do whether to end early (``early_end``). A checkpoint that cannot be written
is skipped: training continues, the one before it stays valid, and the step's record names the
failure.
"""

import json
import math
import os
import struct
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pyarrow import NativeFile
from torch import Tensor

from w2s_ray.capacity.execution import THREADS
from w2s_ray.errors import InputError
from w2s_ray.models.weight_files import write_file
from w2s_ray.objectives.confidence import ThresholdBuffer
from w2s_ray.training.early_end import asked
from w2s_ray.training.engine import Engine
from w2s_ray.training.evaluations import EVALUATED
from w2s_ray.training.loop import Curve
from w2s_ray.training.random_states import random_states, set_random_states

RANDOM = "random/"  # prefix of the names of random states in a file
_WHOLE, _DAMAGED, _UNREADABLE = range(3)  # the files of a checkpoint that a rank has looked at


class Checkpoint(Protocol):
    """A complete checkpoint (``store.checkpoints.Checkpoint``)."""

    @property
    def update(self) -> int:
        """Optimizer steps made before it was written."""

    @property
    def content(self) -> dict[str, Any]:
        """The JSON values given to ``CheckpointStorage.complete``."""

    @property
    def files(self) -> Mapping[str, str]:
        """Digests of its files, by name."""

    @property
    def location(self) -> str:
        """Its path or URI, for messages."""


class CheckpointStorage(Protocol):
    """Where the checkpoints of one run are stored (``store.checkpoints.Checkpoints``).

    It travels with its job by pickle. Several processes may write files of one checkpoint.
    """

    def writing(self, update: int, name: str) -> AbstractContextManager[Path]:
        """A local path to write to, which becomes a file of the checkpoint when the block ends."""

    def complete(
        self, update: int, content: Mapping[str, Any], files: Mapping[str, tuple[int, str]]
    ) -> None:
        """Makes a checkpoint of written files (name -> bytes and SHA-256), with JSON values."""

    def latest(
        self, before: int | None = None, passed_over: list[str] | None = None
    ) -> Checkpoint | None:
        """The newest complete checkpoint (before that of an update); None if there is none.
        ``passed_over`` takes a line on each damaged one."""

    def is_whole(self, checkpoint: Any, name: str) -> bool:
        """Whether a file of a checkpoint is the one that was written; it is read to its end."""

    def open_file(self, update: int, name: str) -> NativeFile:
        """A file of a checkpoint, for random access."""


class SavesLogits(Protocol):
    """What was evaluated during the training (``evaluations.Evaluations``)."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names, which begin with ``EVALUATED``, and float32 tensors."""

    def restore(self, named: Mapping[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""


class Checkpointer:
    """Writes and restores the checkpoints of one run; every rank has one and makes the same calls.

    Args:
        checkpoints: where they are stored.
        engine: holds the state.
        identity: what must be equal for a checkpoint to be of this run: name -> digest.
        total_updates: of the run; the last is checkpointed if an earlier one was, since scoring or
            the export may fail after it.
        every_updates, every_seconds: when a checkpoint is due; None: never for that reason.
        preempted: whether this machine is about to be reclaimed; a checkpoint is then due at once.
        evaluations: what was evaluated so far; None: nothing is.
    """

    def __init__(
        self,
        checkpoints: CheckpointStorage,
        engine: Engine,
        identity: Mapping[str, str],
        *,
        total_updates: int | None = None,
        every_updates: int | None = None,
        every_seconds: float | None = None,
        preempted: Callable[[], bool] = lambda: False,
        evaluations: SavesLogits | None = None,
    ) -> None:
        self._checkpoints, self._engine, self._identity = checkpoints, engine, dict(identity)
        self._every_updates, self._every_seconds = every_updates, every_seconds
        self._total_updates, self._evaluations = total_updates, evaluations
        self._preempted, self._saved_for_preemption = preempted, False
        self._last_save = time.monotonic()
        self._seconds_before = 0.0  # training time of earlier attempts, up to the checkpoint
        self.saved = 0
        self.failures: list[str] = []

    def due(self, update: int) -> bool:
        """Whether this rank wants a checkpoint after update ``update`` (from 1)."""
        if self._every_updates is not None and update % self._every_updates == 0:
            return True
        if asked() or (not self._saved_for_preemption and self._preempted()):
            return True
        if update == self._total_updates and self.saved:
            return True
        elapsed = time.monotonic() - self._last_save
        return self._every_seconds is not None and elapsed >= self._every_seconds

    def save(self, curve: Curve, buffer: ThresholdBuffer | None) -> None:
        """Writes a checkpoint of the state after the last update of ``curve``.

        Raises:
            KeyboardInterrupt: on every rank, if one of them is asked to end early.
        """
        update, engine = len(curve.loss), self._engine
        self._saved_for_preemption = self._preempted()
        size, digest, error = 0, sha256().digest(), ""
        try:
            with self._checkpoints.writing(update, _file(engine.rank, engine.world)) as path:
                self._write(path)
                size, digest = path.stat().st_size, _digest(path)
        except OSError as problem:
            error = _one_line(problem)
        parts = np.frombuffer(digest, np.int64).tolist()
        of_rank = torch.tensor([[-1 if error else size, asked(), *parts]])
        sizes, asked_ranks, *parts = engine.gather(of_rank).T.tolist()
        if min(sizes) >= 0 and engine.rank == 0:
            digests = [bytes(part).hex() for part in np.array(parts, np.int64).T.copy()]
            files = {
                _file(rank, engine.world): of
                for rank, of in enumerate(zip(sizes, digests, strict=True))
            }
            content = {
                "identity": self._identity,
                "curve": vars(curve),
                "buffer": buffer.state_dict() if buffer else None,
                "threads": torch.get_num_threads(),
            }
            try:
                self._checkpoints.complete(update, content, files)
            except OSError as problem:
                error = _one_line(problem)
        if error or min(sizes) < 0:
            line = f"update {update}: no checkpoint: {error or 'another worker could not write'}"
            self.failures.append(line)
            warnings.warn(line, stacklevel=2)
        else:
            self.saved += 1
        self._last_save = time.monotonic()
        if any(asked_ranks):
            raise KeyboardInterrupt

    def restore(self, buffer: ThresholdBuffer | None) -> Curve:
        """Restores the newest checkpoint into the engine; an empty curve if there is none.

        One with a damaged file is passed over, which the step's record will say.

        Raises:
            InputError: the checkpoint is of another model or other data. Nothing is changed.
        """
        checkpoint = self._newest()
        if checkpoint is None:
            return Curve()
        self._check_identity(checkpoint)
        _use_threads(checkpoint.content.get("threads", 0))
        try:
            return self._read(checkpoint, buffer)
        except (LookupError, TypeError, ValueError, struct.error) as error:
            raise InputError(
                f"checkpoint {checkpoint.location}: it cannot be read ({type(error).__name__}: "
                f"{error}); move its files away and rerun to resume from the one before it"
            ) from error

    def _newest(self) -> Checkpoint | None:
        """The newest checkpoint whose files are all whole; the ranks share their reading.

        Raises:
            OSError: on every rank, if a file cannot be read on one of them.
        """
        before, passed_over = None, list[str]()
        while True:
            checkpoint = self._checkpoints.latest(before, passed_over)
            state, error = _WHOLE, None
            try:
                if checkpoint is not None and not self._is_whole(checkpoint):
                    state = _DAMAGED
            except OSError as problem:
                state, error = _UNREADABLE, problem
            seen = torch.tensor([[checkpoint.update if checkpoint else 0, state]])
            updates, states = self._engine.gather(seen).T.tolist()
            if max(states) == _UNREADABLE:
                raise error or OSError("another worker cannot read its file of the checkpoint")
            if len(set(updates)) > 1:
                raise RuntimeError(f"workers see different checkpoints: updates {updates}")
            if checkpoint is None or max(states) == _WHOLE:
                break
            passed_over.append(f"checkpoint {checkpoint.location}: passed over: a file is damaged")
            before = checkpoint.update
        self.failures += passed_over
        for line in passed_over:
            warnings.warn(line, stacklevel=2)
        return checkpoint

    def _is_whole(self, checkpoint: Checkpoint) -> bool:
        """Of this rank's share of the files."""
        own = sorted(checkpoint.files)[self._engine.rank :: self._engine.world]
        return all(self._checkpoints.is_whole(checkpoint, name) for name in own)

    def metrics(self, resumed_at: int) -> dict[str, Any]:
        """The entry ``checkpoints`` of the step's record."""
        return {
            "resumed_at": resumed_at,
            "seconds_before": self._seconds_before,
            "saved": self.saved,
            "failures": self.failures,
        }

    def _read(self, checkpoint: Checkpoint, buffer: ThresholdBuffer | None) -> Curve:
        with ExitStack() as stack:
            files = [
                _ShardFile(
                    stack.enter_context(self._checkpoints.open_file(checkpoint.update, name))
                )
                for name in sorted(checkpoint.files)
            ]
            state = _ShardedState(files)
            for fragment in self._engine.fragments():
                for part, live in fragment.parts.items():
                    live.copy_(state.read(f"{part}/{fragment.name}", fragment.start, live.numel()))
            if self._evaluations is not None:
                self._evaluations.restore(files[0].logits())
            if self._engine.rank < len(files):
                set_random_states(files[self._engine.rank].random_states())
        self._engine.restored(checkpoint.update)
        if buffer:
            buffer.load_state_dict(checkpoint.content["buffer"])
        curve = Curve(**checkpoint.content["curve"])
        self._seconds_before = curve.seconds
        return curve

    def _write(self, path: Path) -> None:
        """Writes this rank's file: its fragments, one at a time, and its random states; rank 0's
        holds what was evaluated too."""
        random = random_states()
        kinds = {name: (t.dtype, tuple(t.shape)) for name, t in self._tensors(random)}
        write_file(path, kinds, self._tensors(random))

    def _tensors(self, random: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of this rank's file."""
        holds = self._engine.sharded or self._engine.rank == 0
        for fragment in self._engine.fragments() if holds else ():
            for part, live in fragment.parts.items():
                yield f"{part}/{fragment.name}@{fragment.start}", live
        if self._evaluations is not None and self._engine.rank == 0:
            yield from self._evaluations.tensors()
        for name, tensor in random.items():
            yield RANDOM + name, tensor

    def _check_identity(self, checkpoint: Checkpoint) -> None:
        for what, digest in self._identity.items():
            if checkpoint.content.get("identity", {}).get(what) != digest:
                raise InputError(
                    f"checkpoint {checkpoint.location}: it was written for another {what}; "
                    "move its folder away and rerun to train from the start"
                )


def _file(rank: int, world: int) -> str:
    return f"rank-{rank:05}-of-{world:05}.safetensors"


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return file_digest(file, "sha256").digest()


def _use_threads(threads: int) -> None:
    """Computes with as many threads as the run began with, unless the user has fixed their number:
    some sums are split among threads, so the last bit depends on it."""
    if THREADS not in os.environ and 0 < threads <= (os.cpu_count() or 1):
        torch.set_num_threads(threads)


def _one_line(error: OSError) -> str:
    return " ".join(str(error).split())


class _ShardFile:
    """The safetensors file of one rank, read in stretches."""

    def __init__(self, file: NativeFile) -> None:
        (length,) = struct.unpack("<Q", file.read(8))
        self.head: dict[str, dict[str, Any]] = json.loads(file.read(length))
        del self.head["__metadata__"]
        self._file, self._begin = file, 8 + length

    def read(self, name: str, start: int, count: int) -> Tensor:
        """Reads ``count`` elements of a float32 tensor from element ``start`` on."""
        self._file.seek(self._begin + self.head[name]["data_offsets"][0] + 4 * start)
        return torch.from_numpy(np.frombuffer(self._file.read(4 * count), np.float32).copy())

    def logits(self) -> dict[str, Tensor]:
        """What was evaluated before the checkpoint; in the file of rank 0."""
        shapes = {n: e["shape"] for n, e in self.head.items() if n.startswith(EVALUATED)}
        return {n: self.read(n, 0, math.prod(s)).view(*s) for n, s in shapes.items()}

    def random_states(self) -> dict[str, Tensor]:
        """The random states of the rank that wrote the file."""
        types = {"U8": np.uint8, "I64": np.int64, "F64": np.float64}
        states = {}
        for name, entry in self.head.items():
            if name.startswith(RANDOM):
                begin, end = entry["data_offsets"]
                self._file.seek(self._begin + begin)
                raw = np.frombuffer(self._file.read(end - begin), types[entry["dtype"]])
                states[name.removeprefix(RANDOM)] = torch.from_numpy(raw.copy())
        return states


class _ShardedState:
    """The whole state of a run, spread over the files of its ranks."""

    def __init__(self, files: list[_ShardFile]) -> None:
        self._holders: dict[str, list[tuple[int, int, str, _ShardFile]]] = {}
        for file in files:
            for name, entry in file.head.items():
                if not name.startswith((RANDOM, EVALUATED)):
                    whole, _, start = name.rpartition("@")
                    (count,) = entry["shape"]
                    holder = (int(start), int(start) + count, name, file)
                    self._holders.setdefault(whole, []).append(holder)

    def read(self, name: str, start: int, count: int) -> Tensor:
        """Reads ``count`` elements of the flat ``part/parameter`` from element ``start`` on."""
        out, filled = torch.empty(count), 0
        for begin, end, stretch, file in self._holders.get(name, ()):
            first, last = max(begin, start), min(end, start + count)
            if first < last:
                out[first - start : last - start] = file.read(stretch, first - begin, last - first)
                filled += last - first
        if filled != count:
            raise ValueError(f"{filled} of {count} elements of {name}")
        return out
