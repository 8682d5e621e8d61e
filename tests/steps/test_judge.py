"""Verdicts of a check that takes long are not given twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.testing.text_studies import text_spec
from w2s_ray.plan.build import build
from w2s_ray.plan.step import Step
from w2s_ray.running.runner import execute
from w2s_ray.spec.loading import load
from w2s_ray.steps import judge
from w2s_ray.steps.context import Context
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.artifacts import Store
from w2s_ray.store.drafts import Draft

SAMPLES = 2 * (6 + 2)  # of the tiny study's test and transfer prompts


class Checks:
    """Verdicts by the length of an answer; counts, and stops at the n-th."""

    def __init__(self, most: int = 1_000, fails_from: int = 1_000) -> None:
        self.asked: list[str] = []
        self.most, self.fails_from = most, fails_from

    def __call__(self, check: Any, prompt: str, text: str) -> tuple[float | None, str | None]:
        if len(self.asked) == self.most:
            raise KeyboardInterrupt
        self.asked.append(prompt + text)
        if len(self.asked) > self.fails_from:
            return (None, "the service does not answer")
        return (len(text) % 5 / 4, None)

    def __enter__(self) -> "Checks":
        return self

    def __exit__(self, *arguments: object) -> None:
        return None


@pytest.fixture
def started(tmp_path: Path) -> tuple[Step, dict[str, Artifact]]:
    """A judge whose samples are there."""
    plan = build(load(text_spec(tmp_path)))
    store = Store.open(str(tmp_path / "store"))
    samples = next(s for s in plan if s.kind.name == "generate" and "model" not in s.inputs)
    step = next(s for s in plan if s.kind.name == "judge" and samples.key in s.inputs.values())
    for key in [*samples.inputs.values(), samples.key]:
        execute(plan.steps[key], store)
    return step, {role: store.artifact(key) for role, key in step.inputs.items()}


@pytest.fixture
def verdicts(
    started: tuple[Step, dict[str, Artifact]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Checks, Context], list[Any]]:
    """Judges with some checks, in shards of three."""
    monkeypatch.setattr(judge, "SHARD", 3)

    def judged(checks: Checks, context: Context) -> list[Any]:
        monkeypatch.setattr(judge, "_checker", lambda step, inputs: checks)
        draft = Draft(tmp_path / "draft")
        draft.folder.mkdir(exist_ok=True)
        judge.run(*started, draft, context)
        rows: list[Any] = pq.read_table(draft.folder / "verdicts.parquet").to_pylist()
        return rows

    return judged


@pytest.fixture
def keeping() -> Context:
    kept: dict[str, NDArray[Any]] = {}

    def keep(name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        if name not in kept:
            kept[name] = make()
        return kept[name]

    return Context(keep=keep)


def test_a_killed_judge_checks_what_it_has_not_kept(
    verdicts: Callable[[Checks, Context], list[Any]], keeping: Context
) -> None:
    straight = Checks()
    expected = verdicts(straight, Context())
    assert len(straight.asked) == len(expected) >= SAMPLES
    with pytest.raises(KeyboardInterrupt):
        verdicts(Checks(most=8), keeping)
    again = Checks()
    assert verdicts(again, keeping) == expected
    assert again.asked == straight.asked[6:], "two shards of three were kept"


def test_verdicts_that_failed_are_asked_for_again(
    verdicts: Callable[[Checks, Context], list[Any]], keeping: Context
) -> None:
    """What made a check fail may be mended: memory, a service, a variable."""
    expected = verdicts(Checks(), Context())
    failed = verdicts(Checks(fails_from=7), keeping)
    assert [row["reward"] is None for row in failed] == [n >= 7 for n in range(len(failed))]
    again = Checks()
    assert verdicts(again, keeping) == expected
    assert len(again.asked) == len(expected) - 6
