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

    def __init__(self, most: int = 1_000) -> None:
        self.asked: list[str] = []
        self.most = most

    def __call__(self, check: Any, prompt: str, text: str) -> tuple[float, None]:
        if len(self.asked) == self.most:
            raise KeyboardInterrupt
        self.asked.append(prompt + text)
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


def test_a_killed_judge_checks_what_it_has_not_kept(
    started: tuple[Step, dict[str, Artifact]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "SHARD", 3)
    kept: dict[str, NDArray[Any]] = {}

    def keep(name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        if name not in kept:
            kept[name] = make()
        return kept[name]

    def verdicts(checks: Checks, context: Context) -> list[Any]:
        monkeypatch.setattr(judge, "_checker", lambda step, inputs: checks)
        draft = Draft(tmp_path / "draft")
        draft.folder.mkdir(exist_ok=True)
        judge.run(*started, draft, context)
        rows: list[Any] = pq.read_table(draft.folder / "verdicts.parquet").to_pylist()
        return rows

    straight = Checks()
    expected = verdicts(straight, Context())
    assert len(straight.asked) == len(expected) >= SAMPLES
    with pytest.raises(KeyboardInterrupt):
        verdicts(Checks(most=8), Context(keep=keep))
    again = Checks()
    assert verdicts(again, Context(keep=keep)) == expected
    assert again.asked == straight.asked[6:], "two shards of three were kept"
