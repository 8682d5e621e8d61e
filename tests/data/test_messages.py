"""Rows as messages, for chat templates: what each form of row becomes, in the order of answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.data.prepare import SPLITS, prepare
from w2s_ray.spec.schema import DataSpec

Turns = list[tuple[str, str]]


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


QUESTION, GOOD, BAD = ("user", "Which box?"), ("assistant", "The left."), ("assistant", "None.")
SYSTEM, MORE = ("system", "Be brief."), ("user", "And now?")


def prepared(folder: Path, row: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """The one row of ``test``, and what other rows there must be."""
    splits = {}
    for split in SPLITS:
        path = folder / f"{split}.jsonl"
        path.write_text(json.dumps(row) + "\n" + fields.pop("other", ""))
        splits[split] = [str(path)]
    spec = DataSpec.model_validate({"kind": "preference", "splits": splits, **fields})
    found: list[dict[str, Any]] = prepare(spec, messages=True).tables["test"].to_pylist()
    return found


FORMS: list[tuple[dict[str, Any], Turns]] = [
    (
        {"chosen": messages(QUESTION, GOOD), "rejected": messages(QUESTION, BAD)},
        [QUESTION],
    ),
    (
        {
            "prompt": messages(SYSTEM, QUESTION),
            "chosen": messages(GOOD),
            "rejected": messages(BAD),
        },
        [SYSTEM, QUESTION],
    ),
    (
        {
            "prompt": messages(QUESTION),
            "chosen": messages(QUESTION, GOOD),
            "rejected": messages(QUESTION, BAD),
        },
        [QUESTION],
    ),
    (
        {
            "prompt": "Which box?",
            "chosen": messages(QUESTION, GOOD),
            "rejected": messages(QUESTION, BAD),
        },
        [QUESTION],
    ),
    (
        {"prompt": "Which box?", "chosen": messages(GOOD), "rejected": messages(BAD)},
        [QUESTION],
    ),
    ({"prompt": "Which box?", "chosen": "The left.", "rejected": "None."}, [QUESTION]),
    (
        {
            "chosen": "\n\nHuman: Which box?\n\nAssistant: Hm.\n\nHuman: And now?"
            "\n\nAssistant: The left.",
            "rejected": "\n\nHuman: Which box?\n\nAssistant: Hm.\n\nHuman: And now?"
            "\n\nAssistant: None.",
        },
        [QUESTION, ("assistant", "Hm."), MORE],
    ),
    (
        {
            "prompt": "\n\nHuman: Which box?\n\nAssistant:",
            "chosen": " The left.",
            "rejected": " None.",
        },
        [QUESTION],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "before"), FORMS)
@pytest.mark.parametrize("seed", range(4))  # A is the preferred answer under some of them
def test_a_row_keeps_its_conversations(
    tmp_path: Path, row: dict[str, Any], before: Turns, seed: int
) -> None:
    (found,) = prepared(tmp_path, row, seed=seed)
    good, bad = [messages(*before, answer) for answer in (GOOD, BAD)]
    assert found["messages"] == ([good, bad] if found["label"] else [bad, good])
    assert [answer.strip() for answer in found["answers"]] == [
        conversation[-1]["content"] for conversation in found["messages"]
    ]


def test_a_text_without_a_prompt_is_one_message_of_the_user(tmp_path: Path) -> None:
    pair = {"chosen": "The box is red", "rejected": "The box is blue"}
    (found,) = prepared(tmp_path, pair)
    assert sorted(m["content"] for (m,) in found["messages"]) == sorted(pair.values())
    text, other = {"text": "fine", "label": 1}, json.dumps({"text": "bad", "label": 0})
    found = prepared(tmp_path, text, kind="classification", other=other)[0]
    assert found["messages"] == [messages(("user", found["answers"][0]))]


def test_rows_have_no_messages_unless_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": f"p{n}", "chosen": "a", "rejected": "b"}) + "\n" for n in range(3)
        )
    )
    sizes = dict.fromkeys(SPLITS, 1)
    spec = DataSpec.model_validate({"kind": "preference", "source": str(path), "sizes": sizes})
    plain, kept = prepare(spec), prepare(spec, messages=True)
    for split in SPLITS:
        assert "messages" not in plain.tables[split].column_names
        assert kept.tables[split].drop_columns("messages").equals(plain.tables[split])
