"""A study with too few rows is refused with what in the spec may help."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.data.prepare import SPLITS, prepare
from w2s_ray.errors import InputError
from w2s_ray.spec.schema import DataSpec

Rows = list[dict[str, Any]]
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    def of(rows: Rows, size: int = 5, **more: Any) -> str:
        path = tmp_path / "x.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        spec = {"kind": "preference", "source": str(path), "sizes": dict.fromkeys(SPLITS, size)}
        with pytest.raises(InputError) as error:
            prepare(DataSpec.model_validate({**spec, **more}))
        return str(error.value)

    return of


def alike(n: int, **more: Any) -> Rows:
    """Plain answers that all begin alike, so that without a prompt they are one group."""
    row = {"chosen": "Sure! Yes {}", "rejected": "Sure! No {}", **more}
    return [json.loads(json.dumps(row).replace("{}", str(number))) for number in range(n)]


TURN = {"role": "user", "content": "Why {}?"}
ANSWERS = {
    "chosen": [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "Yes {}"}],
    "rejected": [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "No {}"}],
}


@pytest.mark.parametrize(
    ("more", "column"),
    [
        ({"question": "Why {}?"}, "question"),
        ({"source": "web", "Instructions": "Why {}?"}, "Instructions"),
        ({"user_input": "Why {}?"}, "user_input"),
        ({**ANSWERS, "messages": [TURN]}, "messages"),
        ({**ANSWERS, "talk": json.dumps([TURN])}, "talk"),
    ],
)
def test_a_column_that_may_be_the_prompt_is_suggested_before_one_of_groups(refused, more, column):
    message = refused(alike(30, **more))
    start = f"column '{column}' is not read and may be the prompt: columns: {{prompt: {column}}}"
    assert f"{start} in the spec reads it; or name a column with the group" in message


@pytest.mark.parametrize(
    "more", [{"prompt_id": "p {}"}, {"context": 5}, {"prompt": "p", "input": "i"}]
)
def test_other_columns_are_not_taken_for_the_prompt(refused, more):
    message = refused(alike(30, **more))
    assert "may be the prompt" not in message and "(columns.group)" in message


def test_the_suggested_column_is_enough(refused, tmp_path):
    refused(alike(30, **ANSWERS, messages=[TURN]))
    spec = {"kind": "preference", "source": str(tmp_path), "sizes": dict.fromkeys(SPLITS, 5)}
    data = DataSpec.model_validate({**spec, "columns": {"prompt": "messages"}})
    assert prepare(data).report["splits"]["weak"]["groups"] == 5


def test_rows_that_no_transcripts_are_name_the_format_that_reads_them(refused, tmp_path):
    message = refused(alike(30), format="hh")
    assert "0 of 30 rows are usable, 30 no common prompt" in message
    hint = (
        "; format: hh reads every text as a transcript (Human: … Assistant: …), format: auto also "
        "reads plain texts"
    )
    assert message.endswith(hint)
    files = {split: str(tmp_path / f"{split}.jsonl") for split in SPLITS}
    for file in files.values():
        Path(file).write_bytes((tmp_path / "x.jsonl").read_bytes())
    with pytest.raises(InputError) as error:
        prepare(DataSpec.model_validate({"kind": "preference", "splits": files, "format": "hh"}))
    assert str(error.value).endswith(f"30 no common prompt{hint}")


def test_one_is_singular_and_texts_have_no_prompts(refused):
    message = refused(alike(1, prompt="p", title="t"))
    assert "1 of 1 row is usable (columns not read: title; 1 row), with 1 different prompt;" in (
        message
    )
    assert "no prompt may be in two splits" in message
    texts: Rows = [{"text": "t", "label": label} for label in (0, 1)]
    message = refused(texts, kind="classification")
    assert "2 of 2 rows are usable, with 1 different text; sizes" in message
    assert message.endswith("and no text may be in two splits")
    continued = [{**row, "prompt": f"Go{' on' * n}"} for n, row in enumerate(alike(30))]
    together = "30 different prompts in 1 group of rows that belong together, the largest of 30 row"
    assert together in refused(continued)
