"""Answers are the same however they are computed: in shards, resumed, alone or with others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from tests.testing.text_studies import text_spec
from w2s_ray.models.decoding import decode
from w2s_ray.plan.build import build
from w2s_ray.plan.step import Step
from w2s_ray.running.runner import execute
from w2s_ray.spec.loading import load
from w2s_ray.steps import generate
from w2s_ray.steps.context import Context
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.artifacts import Store
from w2s_ray.store.drafts import Draft

SAMPLES = 6  # of a prompt of the tiny study, for pairs


class Interrupted(Exception):
    pass


class Kept:
    """Shards that stay although the step did not end."""

    def __init__(self, most: int) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.most, self.made = most, 0

    def keep(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        if name not in self.arrays:
            if self.made == self.most:
                raise Interrupted
            self.made += 1
            self.arrays[name] = make()
        return self.arrays[name]


@pytest.fixture
def started(tmp_path: Path) -> tuple[Step, dict[str, Artifact]]:
    """A step whose input, the prompts, is finished."""
    plan = build(load(text_spec(tmp_path)))
    store = Store.open(str(tmp_path / "store"))
    step = next(step for step in plan if step.kind.name == "generate")
    ((role, key),) = step.inputs.items()
    execute(plan.steps[key], store)
    return step, {role: store.artifact(key)}


def answered(started: tuple[Step, dict[str, Artifact]], folder: Path, kept: Kept) -> list[Any]:
    folder.mkdir(exist_ok=True)
    draft = Draft(folder)
    generate.run(*started, draft, Context(keep=kept.keep))
    rows: list[Any] = pq.read_table(folder / "samples.parquet").to_pylist()
    return rows


def test_a_step_that_was_killed_resumes_at_its_next_shard_with_the_same_answers(
    started: tuple[Step, dict[str, Artifact]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "DECODED_ROWS", 3 * SAMPLES)
    straight = answered(started, tmp_path / "straight", Kept(10))
    kept = Kept(1)
    with pytest.raises(Interrupted):
        answered(started, tmp_path / "resumed", kept)
    kept.most = 10
    assert answered(started, tmp_path / "resumed", kept) == straight
    assert kept.made == 3  # 8 prompts in shards of 3


def test_answers_do_not_depend_on_the_size_of_a_shard(
    started: tuple[Step, dict[str, Artifact]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for size in (1, 5, 100):
        monkeypatch.setattr(generate, "DECODED_ROWS", size * SAMPLES)
        found.append(answered(started, tmp_path / str(size), Kept(100)))
    assert [row["tokens"] for row in found[0]] == [row["tokens"] for row in found[1]]
    assert [row["text"] for row in found[1]] == [row["text"] for row in found[2]]
    sums = [[row["log_prob"] for row in rows] for rows in found]
    np.testing.assert_allclose(sums[0], sums[2], atol=1e-4)


def test_where_memory_runs_out_fewer_rows_generate_the_same_answers(
    started: tuple[Step, dict[str, Artifact]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, tried = answered(started, tmp_path / "whole", Kept(10)), []

    def with_room_for(most: int) -> Callable[..., Any]:
        def decoded(*given: Any, batch_rows: int, **options: Any) -> Any:
            tried.append(batch_rows)
            if batch_rows > most:
                raise torch.OutOfMemoryError("out of memory")
            return decode(*given, batch_rows=batch_rows, **options)

        return decoded

    monkeypatch.setattr(generate, "DECODED_ROWS", 4 * SAMPLES)
    monkeypatch.setattr(generate, "decode", with_room_for(2 * SAMPLES))
    found = answered(started, tmp_path / "small", Kept(10))
    assert tried == [24, 12, 12]  # 8 prompts in shards of 4; the second knows
    assert [row["tokens"] for row in found] == [row["tokens"] for row in whole]
    tried.clear()
    monkeypatch.setattr(generate, "decode", with_room_for(0))
    with pytest.raises(torch.OutOfMemoryError):
        answered(started, tmp_path / "none", Kept(10))
    assert tried == [24, 12, 6, 3]


def test_a_prompt_without_room_for_an_answer_is_a_row_that_says_so(
    tmp_path: Path, started: tuple[Step, dict[str, Artifact]]
) -> None:
    step, inputs = started
    (role,) = inputs
    table = pq.read_table(inputs[role].folder / "prompts.parquet")
    long = ["x" * 60, *table["prompt"].to_pylist()[1:]]
    changed = table.set_column(1, "prompt", [long])

    class Changed:
        def file(self, name: str) -> Path:
            pq.write_table(changed, tmp_path / name)
            return tmp_path / name

    rows = answered((step, {role: Changed()}), tmp_path / "long", Kept(10))  # type: ignore[dict-item]
    failed = [row for row in rows if row["error"]]
    assert {row["prompt_id"] for row in failed} == {table["prompt_id"][0].as_py()}
    assert "more than max_length_tokens" in failed[0]["error"] and failed[0]["text"] is None
    assert len(rows) == 8 * SAMPLES
