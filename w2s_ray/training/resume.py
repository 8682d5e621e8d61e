"""A run that goes on where it was: its state written every so often, and found again.

One format for every engine: each rank writes the fragments that it holds (a stretch of a flat
parameter, its fp32 master and both moments), named by parameter and place. Reading asks for
stretches, whoever wrote them: the same world gets its own bytes back, hence goes on exactly;
another world, another ZeRO stage, or one process alone reads across files. Nothing is converted,
and no process ever holds more than one parameter beside its share.

Whether a checkpoint is due is agreed by all ranks (``loop.train`` adds it up): clocks may differ.
A checkpoint that cannot be written costs nothing but itself: the run goes on, the last one is still
good, and the step's record says what happened.
"""

import json
import struct
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyarrow import NativeFile
from torch import Tensor

from w2s_ray.errors import InputError
from w2s_ray.models.weight_files import write_file
from w2s_ray.objectives.confidence import ThresholdBuffer
from w2s_ray.store.checkpoints import Checkpoint, Checkpoints
from w2s_ray.training.engine import Engine
from w2s_ray.training.loop import Curve
from w2s_ray.training.random_states import random_states, set_random_states

RANDOM = "random/"


class Keeper:
    """Writes and reads the checkpoints of one run; every rank has one and makes the same calls.

    Args:
        checkpoints: where they are.
        engine: holds the state.
        identity: what must be the same for a checkpoint to be of this run, in words -> a digest.
        total_updates: of the run; the last is kept if any was, for scores and exports may fail.
        every_updates, every_seconds: when one is due; None: never so.
        hurry: whether this machine is about to be taken away: then one is due at once.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        engine: Engine,
        identity: Mapping[str, str],
        *,
        total_updates: int | None = None,
        every_updates: int | None = None,
        every_seconds: float | None = None,
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        self._checkpoints, self._engine, self._identity = checkpoints, engine, dict(identity)
        self._every_updates, self._every_seconds = every_updates, every_seconds
        self._total = total_updates
        self._hurry, self._hurried = hurry, False
        self._last = time.monotonic()
        self._seconds_before = 0.0  # in which earlier tries came to the checkpoint
        self.saved = 0
        self.failures: list[str] = []

    def due(self, update: int) -> bool:
        """Whether this rank wants a checkpoint after update ``update`` (from 1)."""
        if self._every_updates is not None and update % self._every_updates == 0:
            return True
        if not self._hurried and self._hurry():
            return True
        if update == self._total and self.saved:
            return True
        elapsed = time.monotonic() - self._last
        return self._every_seconds is not None and elapsed >= self._every_seconds

    def save(self, curve: Curve, buffer: ThresholdBuffer | None) -> None:
        """Writes a checkpoint of the state after the last update of ``curve``."""
        update, engine = len(curve.loss), self._engine
        self._hurried = self._hurry()
        size, error = 0, ""
        try:
            with self._checkpoints.writing(update, _file(engine.rank, engine.world)) as path:
                self._write(path)
                size = path.stat().st_size
        except OSError as problem:
            error = " ".join(str(problem).split())
        sizes = engine.gather(torch.tensor([-1 if error else size])).tolist()
        if min(sizes) >= 0 and engine.rank == 0:
            files = {_file(rank, engine.world): n for rank, n in enumerate(sizes)}
            content = {
                "identity": self._identity,
                "curve": vars(curve),
                "buffer": buffer.state_dict() if buffer else None,
            }
            try:
                self._checkpoints.complete(update, content, files)
            except OSError as problem:
                error = " ".join(str(problem).split())
        if error or min(sizes) < 0:
            line = f"update {update}: no checkpoint: {error or 'another worker could not write'}"
            self.failures.append(line)
            warnings.warn(line, stacklevel=2)
        else:
            self.saved += 1
        self._last = time.monotonic()

    def restore(self, buffer: ThresholdBuffer | None) -> Curve:
        """Brings the engine to the newest checkpoint; an empty curve where there is none.

        Raises:
            InputError: the checkpoint is of another model or other data. Nothing is changed.
        """
        found = self._checkpoints.latest()
        updates = self._engine.gather(torch.tensor([found.update if found else 0])).tolist()
        if len(set(updates)) > 1:
            raise RuntimeError(f"workers see different checkpoints: updates {updates}")
        if found is None:
            return Curve()
        self._refuse_another(found)
        try:
            return self._read(found, buffer)
        except (LookupError, TypeError, ValueError, struct.error) as error:
            raise InputError(
                f"checkpoint {found.place}: it cannot be read ({type(error).__name__}: {error}); "
                "move its files away and run again to go on from the one before"
            ) from error

    def _read(self, found: Checkpoint, buffer: ThresholdBuffer | None) -> Curve:
        with ExitStack() as stack:
            files = [
                _Tensors(stack.enter_context(self._checkpoints.open_file(found.update, name)))
                for name in sorted(found.files)
            ]
            state = _Shards(files)
            for fragment in self._engine.fragments():
                for part, live in fragment.parts.items():
                    live.copy_(state.read(f"{part}/{fragment.name}", fragment.start, live.numel()))
            if self._engine.rank < len(files):
                set_random_states(files[self._engine.rank].random_states())
        self._engine.restored(found.update)
        if buffer:
            buffer.load_state_dict(found.content["buffer"])
        curve = Curve(**found.content["curve"])
        self._seconds_before = curve.seconds
        return curve

    def told(self, resumed_at: int) -> dict[str, Any]:
        """What the step's record says."""
        return {
            "resumed_at": resumed_at,
            "seconds_before": self._seconds_before,
            "saved": self.saved,
            "failures": self.failures,
        }

    def _write(self, path: Path) -> None:
        """This rank's file: parts of fragments, one at a time, and its random states."""
        states = random_states()
        holds = self._engine.sharded or self._engine.rank == 0

        def tensors() -> Iterator[tuple[str, Tensor]]:
            for fragment in self._engine.fragments() if holds else ():
                for part, live in fragment.parts.items():
                    yield f"{part}/{fragment.name}@{fragment.start}", live
            for name, tensor in states.items():
                yield RANDOM + name, tensor

        kinds = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors()}
        write_file(path, kinds, tensors())

    def _refuse_another(self, found: Checkpoint) -> None:
        for what, digest in self._identity.items():
            if found.content.get("identity", {}).get(what) != digest:
                raise InputError(
                    f"checkpoint {found.place}: it is of another {what}; move its folder away and "
                    "run again to begin anew"
                )


def _file(rank: int, world: int) -> str:
    return f"rank-{rank:05}-of-{world:05}.safetensors"


class _Tensors:
    """A safetensors file of which stretches are read."""

    def __init__(self, file: NativeFile) -> None:
        (length,) = struct.unpack("<Q", file.read(8))
        self.head: dict[str, dict[str, Any]] = json.loads(file.read(length))
        del self.head["__metadata__"]
        self._file, self._begin = file, 8 + length

    def read(self, name: str, start: int, count: int) -> Tensor:
        """``count`` numbers of a float32 tensor from place ``start``."""
        self._file.seek(self._begin + self.head[name]["data_offsets"][0] + 4 * start)
        return torch.from_numpy(np.frombuffer(self._file.read(4 * count), np.float32).copy())

    def random_states(self) -> dict[str, Tensor]:
        """What ``random_states`` gave to the rank that wrote the file."""
        types = {"U8": np.uint8, "I64": np.int64, "F64": np.float64}
        states = {}
        for name, entry in self.head.items():
            if name.startswith(RANDOM):
                begin, end = entry["data_offsets"]
                self._file.seek(self._begin + begin)
                raw = np.frombuffer(self._file.read(end - begin), types[entry["dtype"]])
                states[name.removeprefix(RANDOM)] = torch.from_numpy(raw.copy())
        return states


class _Shards:
    """The whole state, in files of several ranks."""

    def __init__(self, files: list[_Tensors]) -> None:
        self._holders: dict[str, list[tuple[int, int, str, _Tensors]]] = {}
        for file in files:
            for name, entry in file.head.items():
                if not name.startswith(RANDOM):
                    whole, _, start = name.rpartition("@")
                    (count,) = entry["shape"]
                    holder = (int(start), int(start) + count, name, file)
                    self._holders.setdefault(whole, []).append(holder)

    def read(self, name: str, start: int, count: int) -> Tensor:
        """``count`` numbers of the flat ``part/parameter`` from place ``start``."""
        out, filled = torch.empty(count), 0
        for begin, end, stretch, file in self._holders.get(name, ()):
            first, last = max(begin, start), min(end, start + count)
            if first < last:
                out[first - start : last - start] = file.read(stretch, first - begin, last - first)
                filled += last - first
        if filled != count:
            raise ValueError(f"{filled} of {count} numbers of {name}")
        return out
