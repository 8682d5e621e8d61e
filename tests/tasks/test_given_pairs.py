"""Pairs of the researcher's own: which rows are read, what is left out and why, and their keys."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from w2s_ray.data.sources import data_identity
from w2s_ray.errors import InputError
from w2s_ray.spec.given_pairs import GivenPairs as GivenPairsSpec
from w2s_ray.tasks import given_pairs as reading
from w2s_ray.tasks.given_pairs import GivenPairs, given_pairs


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def row(question: str, good: str = "Yes.", bad: str = "No.") -> dict[str, Any]:
    return {
        "prompt": [turn("user", question)],
        "chosen": [turn("assistant", good)],
        "rejected": [turn("assistant", bad)],
    }


def read(folder: Path, rows: list[Any], wanted: int = 1, **of: Any) -> GivenPairs:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    render, elsewhere = of.pop("render", "chat_template"), of.pop("elsewhere", set())
    spec = GivenPairsSpec.model_validate({"source": str(file), "rows": wanted, **of})
    return given_pairs(spec.as_data(0), render, elsewhere)


def test_each_form_of_a_question_with_two_answers_is_the_same_pair(tmp_path: Path) -> None:
    forms = [
        row("Why?"),
        {"prompt": "Why?", "chosen": "Yes.", "rejected": "No."},
        {"prompt": "Why?", "chosen": row("")["chosen"], "rejected": row("")["rejected"]},
        {
            "chosen": "\n\nHuman: Why?\n\nAssistant: Yes.",
            "rejected": "\n\nHuman: Why?\n\nAssistant: No.",
        },
    ]
    assert read(tmp_path, forms).left_out == {reading.REPEATED: 3}
    pairs = [read(tmp_path, [form]).pairs[0] for form in forms]
    assert {pair[2:] for pair in pairs} == {("Why?", "Yes.", "No.")}
    assert len({pair.prompt_id for pair in pairs}) == 1
    renamed = {"question": "Why?", "good": "Yes.", "bad": "No."}
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    assert read(tmp_path, [renamed], columns=columns).pairs == pairs[1:2]


def test_what_is_left_out_is_counted_with_its_reason(tmp_path: Path) -> None:
    several = [turn("user", "Why?"), turn("assistant", "So."), turn("user", "And?")]
    rows = [
        row("Who?"),
        row("Who?"),
        {**row(""), "prompt": several},
        {**row(""), "prompt": [turn("system", "Be kind."), turn("user", "Why?")]},
        row("Tested?"),
        row("Blank?", good=" \n"),
        row(" "),
        row("Same?", good="No."),
    ]
    found = read(tmp_path, rows, elsewhere={"Tested?"})
    assert [pair.prompt for pair in found.pairs] == ["Who?"]
    assert found.left_out == {
        reading.REPEATED: 1,
        reading.NOT_TWO_TURNS: 2,
        reading.USED_ELSEWHERE: 1,
        reading.NO_ANSWER: 1,
        reading.NO_PROMPT: 1,
        "chosen equals rejected": 1,
    }
    assert found.rows == len(rows) == len(found.pairs) + sum(found.left_out.values())


@pytest.mark.parametrize("render", ["chat_template", "transcript"])
def test_no_pair_begins_with_a_prompt_of_the_study_however_it_is_written(
    tmp_path: Path, render: str
) -> None:
    rows = [
        row("Tell me 3:\n"),
        {"prompt": " Tell  me 3: ", "chosen": "Yes.", "rejected": "No."},
        {
            "chosen": "\n\nHuman: Tell me 3:\n\nAssistant: Yes.",
            "rejected": "\n\nHuman: Tell me 3:\n\nAssistant: No.",
        },
        row("Q: 1+1\nA: 2\n\nQ: 4+4\nA:"),
    ]
    elsewhere = {"Tell me 3: ", "Q: 1+1\nA: 2\n\nQ: 9+9\nA:"}
    found = read(tmp_path, rows, render=render, elsewhere=elsewhere)
    assert found.left_out == {reading.USED_ELSEWHERE: 3}
    assert "4+4" in found.pairs[0].prompt, "examples before a question are no question"


def test_pairs_that_contradict_each_other_are_kept_and_noted(tmp_path: Path) -> None:
    found = read(tmp_path, [row("Why?", "A.", "B."), row("Why?", "B.", "A.")], 2)
    assert len(found.pairs) == 2 and found.notes[reading.CONTRADICTIONS] == 2


def test_plain_texts_may_have_any_number_of_turns(tmp_path: Path) -> None:
    several = {
        "chosen": "\n\nHuman: Hi\n\nAssistant: Hi!\n\nHuman: Why?\n\nAssistant: Yes.",
        "rejected": "\n\nHuman: Hi\n\nAssistant: Hi!\n\nHuman: Why?\n\nAssistant: No.",
    }
    (pair,) = read(tmp_path, [several], render="transcript").pairs
    assert pair.prompt + pair.chosen == several["chosen"]
    assert pair.prompt + pair.rejected == several["rejected"]
    with pytest.raises(
        InputError, match="expected at most 0: so many of 1 rows can be used, 1 not"
    ):
        read(tmp_path, [several])


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(9)), wanted=st.integers(1, 9))
def test_neither_order_nor_number_of_rows_changes_which_come_first(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], wanted: int
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [row(f"Why {number}?") for number in range(9)]
    every = read(folder, rows, 9).pairs
    some = read(folder, [rows[n] for n in order], wanted)
    assert some.pairs == every[:wanted]
    assert sum(some.left_out.values()) == 9 - wanted


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("Why?"), {"prompt": "Who?"}], r"pairs\.jsonl:2: .*chosen"),
        ([{"prompt": "Who?", "chosen": "A.", "reject": "B."}], r"pairs\.jsonl:1: .*rejected"),
        ([{"prompt": "Who?", "chosen": 1, "rejected": "B."}], r"pairs\.jsonl:1: .*chosen"),
        ([{"prompt": "Who?", "chosen": "", "rejected": "B."}], "0 of 1 row is usable, 1 empty"),
        ([row("Why?")] * 3, r"pairs\.given\.rows: given 2, expected at most 1: so many of 3 rows"),
    ],
)
def test_a_file_without_answers_is_refused_with_its_line(
    tmp_path: Path, rows: list[Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, rows, 2)


def test_the_identity_is_of_content_and_choice_but_not_of_names(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row("Why?")) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps(row("Why?")) + "\n")
    (tmp_path / "c.jsonl").write_text(json.dumps(row("Who?")) + "\n")

    def identity(name: str, seed: int = 0, **of: Any) -> Any:
        spec = {"source": str(tmp_path / name), "rows": 1, **of}
        return data_identity(GivenPairsSpec.model_validate(spec).as_data(seed))

    assert identity("a.jsonl") == identity("b.jsonl")
    others = [
        identity("c.jsonl"),
        identity("a.jsonl", rows=2),
        identity("a.jsonl", seed=1),
        identity("a.jsonl", format="trl"),
        identity("a.jsonl", columns={"chosen": "good"}),
    ]
    assert all(other != identity("a.jsonl") for other in others)


@pytest.mark.parametrize("wrong", [{"columns": {"text": "t"}}, {"split": "train_prefs"}])
def test_fields_that_pairs_or_files_do_not_have_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        ValidationError, match=r"only prompt, chosen, rejected|without a Hub source"
    ):
        GivenPairsSpec.model_validate({"source": "pairs.jsonl", "rows": 1, **wrong})
