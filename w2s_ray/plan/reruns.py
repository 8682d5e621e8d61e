"""What a run leaves out, and what it does again although it is finished."""

import argparse
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from w2s_ray.errors import InputError
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.lookup import step_named
from w2s_ray.plan.step import Step
from w2s_ray.store.addresses import shown
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import damaged
from w2s_ray.store.finished import Finder, members_of


def add_rerun_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--only``, ``--no-retry`` and ``--force``, which ``Reruns.of`` reads."""
    parser.add_argument(
        "--only",
        metavar="KEY",
        help="run this step and what it needs, and nothing else; KEY as of --explain",
    )
    parser.add_argument(
        "--no-retry",
        action="store_true",
        help="leave steps that failed in an earlier run; otherwise every run tries them again",
    )
    parser.add_argument(
        "--force",
        metavar="KEY",
        action="append",
        default=[],
        help="make a finished step again: its key, the beginning of one, or kind/slug-key",
    )


@dataclass
class Reruns:
    """The options ``--only``, ``--force`` and ``--no-retry`` of a run.

    Attributes:
        retry: whether steps that failed in an earlier run are tried again.
        only: the name of the step that is run alone; None: all are run.
        forced: keys of the steps that are made again.
    """

    retry: bool = True
    only: str | None = None
    forced: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Reruns":
        """What the options of a command ask for.

        Raises:
            InputError: A step is to be run by a command that runs nothing.
        """
        runs_nothing = options.plan or options.status or options.watch or options.explain
        for name in ("force", "only"):
            if getattr(options, name) and runs_nothing:
                raise InputError(
                    f"--{name}: given with --plan, --status, --watch or --explain, expected a run"
                )
        return cls(not options.no_retry, options.only)

    def force(self, names: Iterable[str], plan: Plan, store: Store) -> list[str]:
        """Sets the artifacts of finished steps aside, and returns a line on each.

        Args:
            names: each a key, the beginning of one, or ``kind/slug-key``.

        Raises:
            InputError: A name is not that of one finished step of the plan; nothing was changed.
        """
        if not (names := list(names)):
            return []
        finished = store.finished_among(plan.steps)
        keys = [_finished_one(name, plan, finished) for name in names]
        readers = {key: _readers(key, plan, finished) for key in keys}
        lines = []
        for key in dict.fromkeys(keys):
            # More than one artifact has it if two runs took each other for dead.
            while key in (finder := Finder(store, [key])).finished():
                step = finder.step(key)
                members = members_of(store, [step.path]).get(step.path, [key])
                error = damaged(shown(store.uri), step.path, step.content, "it is made again")
                with store.writing_errors():
                    store.set_aside(error)
                self.forced.update(plan.steps.keys() & {*members})
                lines.append(_line(step.path, members, plan))
            if readers[key]:
                lines.append(
                    f"note: finished steps that read {key} as it was, directly or not, stay as "
                    f"they are: {len(readers[key]):,}; --force them too to make them again"
                )
        return lines

    def todo(self, plan: Plan, finished: Collection[str], store: Store) -> dict[str, Step]:
        """The steps still to be run, in order."""
        if self.only is None:
            todo = plan.todo(finished, self.forced)
        else:
            todo = _alone(step_named("--only", self.only, plan).key, plan, finished)
        return todo if self.retry else without(todo, store.failures())


def _alone(key: str, plan: Plan, finished: Collection[str]) -> dict[str, Step]:
    """A step and what it needs, as far as they are not finished, in order."""
    wanted = {key} - {*finished}
    todo = plan.todo(finished, wanted)
    for step in reversed(todo.values()):
        if step.key in wanted:
            wanted.update(step.inputs.values())
    return {key: step for key, step in todo.items() if key in wanted}


def _finished_one(name: str, plan: Plan, finished: Collection[str]) -> str:
    """The key of the finished step of the plan with this name."""
    step = step_named("--force", name, plan)
    if step.key not in finished:
        raise InputError(
            f"--force: {step.kind.name} {step.slug}-{step.key} is not finished, so a run without "
            "--force makes it; expected a finished step"
        )
    return step.key


def without(todo: Mapping[str, Step], failed: Collection[str]) -> dict[str, Step]:
    """The steps that neither failed nor need one that did, in the same order."""
    dropped: set[str] = set()
    for key, step in todo.items():
        if key in failed or not dropped.isdisjoint(step.inputs.values()):
            dropped.add(key)
    return {key: step for key, step in todo.items() if key not in dropped}


def _readers(key: str, plan: Plan, finished: Collection[str]) -> set[str]:
    """The finished steps that depend on a step."""
    below = {key}
    for step in plan:
        if not below.isdisjoint(step.inputs.values()):
            below.add(step.key)
    return {other for other in below if other != key and other in finished}


def _line(path: str, members: Sequence[str], plan: Plan) -> str:
    """What was set aside, and what follows."""
    if len(members) == 1:
        return f"set aside: {path}; it is made again"
    own = plan.steps.keys() & {*members}
    others = len(members) - len(own)
    also = f"; {others:,} are of other studies, whose next runs make them again" if others else ""
    return (
        f"set aside: {path}, the bundle of all {len(members):,} steps that were computed together; "
        f"{len(own):,} of this study are made again{also}"
    )
