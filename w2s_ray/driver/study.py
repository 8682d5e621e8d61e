"""A study that is run, watched or explained: its spec, plan, store, and where lines are printed."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from w2s_ray.console import data_view
from w2s_ray.console.lines import Lines
from w2s_ray.driver.spec_file import SpecFile
from w2s_ray.plan.graph import Plan
from w2s_ray.plan.names import step_names
from w2s_ray.plan.reruns import Reruns
from w2s_ray.plan.test_steps import models_without_weights
from w2s_ray.sinks.feed import Sinks
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.schema import Spec
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import StoreError

MOST_LOST = 20  # models without weights that are named


@dataclass(frozen=True)
class Study:
    """What every part of the command works on.

    Attributes:
        command: the words that run the study again, up to an option of what to do.
        shown: data sets whose rows were shown.
    """

    file: SpecFile
    plan: Plan
    store: Store
    say: Lines
    reruns: Reruns
    sinks: Sinks
    command: Sequence[str]
    shown: set[str] = field(default_factory=set)

    @property
    def spec(self) -> Spec | GenerationSpec:
        return self.file.spec

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The steps' names for people, by key."""
        return step_names(self.plan)

    @cached_property
    def cells(self) -> list[dict[str, Any]]:
        """The cells as the store keeps them."""
        return [cell.as_json() for cell in self.plan.cells]

    def set_aside(self, damage: StoreError) -> None:
        """Says what is damaged, and moves it out of the way of the step that makes it again."""
        self.say(str(damage))
        with self.store.writing_errors():
            self.store.set_aside(damage)

    def report_rows(self, name: str, report: Mapping[str, Any]) -> None:
        """Shows the rows of a data set, once."""
        if name in self.shown:
            return
        self.shown.add(name)
        self.say.drawn(data_view.table(name, report))
        for line in data_view.lines(name, report):
            self.say(line)

    def report_tokens(self, data: str, model: str, counts: Mapping[str, int]) -> None:
        """Shows how a model reads a data set."""
        assert isinstance(self.spec, Spec)
        self.say(data_view.token_line(data, model, counts, self.spec.training))

    def say_lost_weights(self, finished: Container[str]) -> None:
        """Names finished models that cannot score a further test set, before anything is spent."""
        lost = models_without_weights(self.plan, finished, self.store)
        if not lost:
            return
        folders = self.store.finished()
        named = ", ".join(folders[key] for key in lost[:MOST_LOST])
        more = f" and {len(lost) - MOST_LOST:,} more" if len(lost) > MOST_LOST else ""
        self.say(
            f"warning: the weights of {len(lost):,} finished models were not kept, so they cannot "
            f"score further test sets: {named}{more}; delete these folders of the store to train "
            "them again"
        )
