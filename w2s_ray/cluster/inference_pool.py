"""Features or labels of one data set on several processes: Ray Data, with a pool of models.

Called by a step that runs in a Tune trial, under the step's claim. What streams through Ray Data
are the parts of the step that its store does not have (``steps.shards``): tasks read their rows
from the prepared Parquet and tokenise them, ahead of the actors of the pool, which have a model
each, and the trial keeps each result as it comes, in whatever order. The step then assembles all of
them, as it does in one process. So a process that dies costs the parts that it was working on, and
a run in one process resumes what several have begun.

A part that fails fails the step, once the others are kept. The tasks reserve no CPU: ``launch``
says why.
"""

import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy
from ray.data.read_api import from_blocks

from w2s_ray.cluster.background import in_thread
from w2s_ray.cluster.placement import Need, cluster_nodes, need_of
from w2s_ray.cluster.process import machine_cpus, use_only
from w2s_ray.cluster.ray_internals import name_process
from w2s_ray.cluster.threads import Share
from w2s_ray.data.tokens import Tokens
from w2s_ray.errors import line_of
from w2s_ray.plan.step import Step
from w2s_ray.steps.context import Context, Part
from w2s_ray.steps.shards import MODEL, Counts, Sharded
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.artifacts import Store
from w2s_ray.store.parts import Parts
from w2s_ray.training.progress import Progress

PART_RETRIES = 2  # of one whose process died
ACTORS_PER_TASK = 2  # which tokenising keeps busy on GPUs, and then some
PARTS_AHEAD = 2  # of each actor: one that it computes, and one that waits in its queue


class ShardedModule(Protocol):
    """The module of a kind whose steps are computed shard by shard."""

    def sharded(self, step: Step, inputs: Mapping[str, Artifact], context: Context) -> Sharded: ...


class Computed(NamedTuple):
    """What an actor returns of a part.

    Attributes:
        values: (n, …) float32.
        facts: of the model.
        peak: memory of the process in bytes, on the GPU if it used one.
    """

    values: NDArray[np.float32]
    counts: Counts
    facts: NDArray[np.bool_] | None
    peak: int


class Work:
    """A step and its store; not a dataclass, whose addresses of models Ray Data would export."""

    def __init__(self, step: Step, store: Store) -> None:
        self.step, self.store = step, store

    def __repr__(self) -> str:
        return f"Work({self.step.slug!r})"


@dataclass(frozen=True)
class InferencePool:
    """Computes the parts of a step on several processes; its ``spread`` is that of a context.

    Attributes:
        store: has the step's inputs, and keeps its parts.
        threads: of each process; None: they share the CPUs of their machine.
    """

    step: Step
    store: Store
    progress: Progress
    threads: int | None = None

    def spread(self, parts: Sequence[Part]) -> Mapping[str, Any]:
        """Computes the parts that are not in the store.

        Raises:
            Exception: the error of the first part that failed, after all others were kept.
        """
        kept = Parts(self.store, self.step.key)
        absent = set(kept.missing([part.name for part in parts]))
        todo = [part for part in parts if part.name in absent]
        if not todo:
            return {}
        rows = sum(part.rows for part in parts)
        done = rows - sum(part.rows for part in todo)
        errors: dict[Part, Exception] = {}
        peak = 0
        self.progress({"step": done, "steps": rows, "unit": "rows"})
        by_name = {part.name: part for part in todo}
        for name, outcome in self._outcomes(todo):
            part = by_name.pop(name)
            if isinstance(outcome, Exception):
                errors[part] = outcome
                continue
            self._keep(kept, part, outcome)
            peak, done = max(peak, outcome.peak), done + part.rows
            self.progress({"step": done, "steps": rows, "unit": "rows"})
        errors |= {part: RuntimeError(_died(part)) for part in by_name.values()}
        if errors:
            raise errors[min(errors, key=todo.index)]
        return {"peak_memory_bytes": peak}

    def _keep(self, kept: Parts, part: Part, computed: Computed) -> None:
        if (facts := computed.facts) is not None:
            kept.keep(MODEL, lambda: facts)
        kept.keep(part.counts_name, lambda: np.array(computed.counts))
        kept.keep(part.name, lambda: computed.values)

    def _outcomes(self, parts: Sequence[Part]) -> Iterator[tuple[str, Computed | Exception]]:
        """Yields name and outcome of each part as it comes; none of those whose process died."""
        blocks = self._dataset(parts).iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        )
        # in threads, so that the step can be interrupted while it waits
        blocks = in_thread(lambda: iter(blocks), "inference-pool")
        while (block := in_thread(lambda: next(blocks, None), "inference-pool")) is not None:
            for name, outcome in zip(*block.columns, strict=True):
                yield name.as_py(), pickle.loads(outcome.as_buffer())

    def _dataset(self, parts: Sequence[Part]) -> Dataset:
        need = need_of(self.step.execution, cluster_nodes())
        work, process = Work(self.step, self.store), dict(need.process)
        DataContext.get_current().enable_progress_bars = False
        dataset: Dataset = (
            from_blocks([_block(part.name, part) for part in parts])
            .map_batches(
                partial(_tokenised, work),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=0,
                compute=TaskPoolStrategy(size=max(1, need.workers // ACTORS_PER_TASK)),
            )
            .map_batches(
                Model,
                fn_constructor_args=(work, need, self.threads),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=process.pop("CPU"),
                num_gpus=process.pop("GPU", 0),
                resources=process,
                compute=ActorPoolStrategy(
                    size=min(need.workers, len(parts)), max_tasks_in_flight_per_actor=PARTS_AHEAD
                ),
                ray_remote_args_fn=_remote_options,
            )
        )
        dataset.context.target_max_block_size = None  # a part stays a block
        dataset.context.max_errored_blocks = -1  # of processes that died: known by what is absent
        return dataset


def _remote_options() -> dict[str, Any]:
    """Of the actors: they must not be placed in the trial's own group, which has no CPU."""
    return {"max_task_retries": PART_RETRIES, "scheduling_strategy": "SPREAD"}


def _died(part: Part) -> str:
    rows = f"{part.start + 1:,} to {part.start + part.rows:,} of {part.split}"
    return f"the process that computed the rows {rows} died {PART_RETRIES + 1} times"


def _block(name: str, content: object) -> pa.Table:
    """One row: the name of a part, and a pickle."""
    pickled = pa.array([pickle.dumps(content, protocol=5)], pa.large_binary())
    return pa.table({"part": [name], "content": pickled})


def _content(block: pa.Table) -> tuple[str, Any]:
    name, content = (column[0] for column in block.columns)
    return name.as_py(), pickle.loads(content.as_buffer())


def _outcome(work: Callable[[], Any]) -> Any:
    """What ``work`` returns, or its error, which travels with its traceback as a note."""
    try:
        return work()
    except Exception as error:
        error.add_note(traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return RuntimeError(line_of(error))
        return error


_opened: dict[tuple[str, str], Sharded] = {}  # by store and key; the newest alone


def sharded_of(step: Step, store: Store) -> Sharded:
    """The parts of a step, in a process that only computes them; opened once."""
    name = store.uri, step.key
    if name not in _opened:
        _opened.clear()
        _opened[name] = _open(step, store)
    return _opened[name]


def _open(step: Step, store: Store) -> Sharded:
    artifacts = store.artifacts(step.inputs.values())
    inputs = {role: artifacts(key) for role, key in step.inputs.items()}
    module = cast(ShardedModule, import_module(step.kind.module))
    return module.sharded(step, inputs, Context())


def _tokenised(work: Work, block: pa.Table) -> pa.Table:
    """A task of Ray Data: (part, ``Part``) → (part, its ``Tokens`` or what was raised)."""
    name, part = _content(block)

    def tokens() -> Tokens:
        shards = sharded_of(work.step, work.store)
        return shards.encoded(shards.read(part))

    return _block(name, _outcome(tokens))


class Model:
    """An actor of the pool: (part, its ``Tokens``) → (part, ``Computed`` or what was raised).

    The model is loaded when the first part comes.
    """

    def __init__(self, work: Work, need: Need, threads: int | None) -> None:
        use_only(need.cpus, need.gpus, threads)
        self._share = Share(machine_cpus() if threads is None else None)
        self._step, self._store = work.step, work.store

    def __call__(self, block: pa.Table) -> pa.Table:
        name_process(f"{self._step.kind} {self._step.slug}")
        name, tokens = _content(block)
        if isinstance(tokens, Exception):
            return block
        return _block(name, _outcome(partial(self._computed, tokens)))

    def _computed(self, tokens: Tokens) -> Computed:
        from w2s_ray.training.peak_memory import peak_memory

        with peak_memory() as peak, self._share.held(self._step, 1, lambda numbers: None) as look:
            model = sharded_of(self._step, self._store).model
            values = model.compute(tokens, lambda done: look({}))
            return Computed(values, Counts.of(tokens), model.facts, peak())
