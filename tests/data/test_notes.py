"""What a reader must know of usable rows is counted, in these words."""

import json
from collections import Counter
from typing import Any

import pytest

from w2s_ray.data.classification import read_text
from w2s_ray.data.preference import Pair, read_pair
from w2s_ray.data.prepare import prepare
from w2s_ray.errors import InputError
from w2s_ray.spec.schema import DataSpec

LONG = "How far is it to the harbour from here?"
HELLO = "Good morning"


def noted(row: dict[str, Any], **renamed: str) -> dict[str, int]:
    notes = Counter[str]()
    assert isinstance(read_pair(row, "x:1", renamed, notes=notes), Pair)
    return dict(notes)


def test_a_row_that_is_read_whole_has_no_note():
    assert noted({"prompt": "p", "chosen": "a", "rejected": "b"}) == {}
    assert noted({"chosen": "a", "rejected": "b"}) == {}
    assert (
        noted({"q": "p", "good": "a", "bad": "b"}, prompt="q", chosen="good", rejected="bad") == {}
    )


def test_columns_that_are_not_read_are_named():
    row = {"system": "s", "chosen": "a", "question": "q", "rejected": "b", "": 0}
    assert noted(row) == {"columns not read: system, question, (no name)": 1}
    row = {"q": "p", "prompt": "not this", "chosen": "a", "rejected": "b"}
    assert noted(row, prompt="q") == {"columns not read: prompt": 1}
    notes = Counter[str]()
    for _ in range(3):
        read_text({"id": 1, "text": "a", "label": 1, "extra": None}, "x:1", {}, notes)
    assert notes == {"columns not read: id, extra": 3}


def test_too_few_rows_are_refused_with_the_columns_that_were_not_read(tmp_path):
    rows = [{"question": f"Q{n}?", "chosen": "Yes.", "rejected": "No."} for n in range(9)]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"ground_truth": 2, "weak": 2, "test": 2}
    data = {"kind": "preference", "source": str(path), "sizes": sizes}
    with pytest.raises(InputError, match=r"usable \(columns not read: question; 9 rows\)"):
        prepare(DataSpec.model_validate(data))
    prepare(DataSpec.model_validate({**data, "columns": {"prompt": "question"}}))


def test_a_prompt_without_a_value_is_said():
    assert noted({"prompt": None, "chosen": "a b", "rejected": "a c"}) == {
        "prompt has no value; the common beginning of the answers is used": 1
    }


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "expected"),
    [
        (LONG, f"{LONG} Two miles.", f"{LONG} No idea.", (LONG, " Two miles.", " No idea.")),
        (f"{LONG}\n", f"{LONG} Two.", f"{LONG} No.", (LONG, " Two.", " No.")),
        (LONG, f" {LONG}Two.", f" {LONG}No.", (f" {LONG}", "Two.", "No.")),
        (HELLO, f"{HELLO} Ann.", f"{HELLO} Bob.", (HELLO, " Ann.", " Bob.")),
    ],
)
def test_a_prompt_that_both_answers_repeat_is_removed_once(prompt, chosen, rejected, expected):
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    notes = Counter[str]()
    pair = read_pair(row, "x:1", {}, notes=notes)
    assert pair == Pair(*expected)
    assert (pair.prompt + pair.chosen, pair.prompt + pair.rejected) == (chosen, rejected)
    assert notes == {"prompt repeated in the answers; removed once": 1}


def test_answers_that_begin_like_a_short_prompt_by_chance_stay():
    row = {"prompt": "Good", "chosen": "Goodness, no.", "rejected": "Good, thanks."}
    assert read_pair(row, "x:1", {}) == Pair(*row.values())
    assert noted(row) == {}


def test_a_prompt_in_one_of_the_answers_is_kept_and_said():
    row = {"prompt": LONG, "chosen": f"{LONG} Two miles.", "rejected": "No idea."}
    assert read_pair(row, "x:1", {}) == Pair(*row.values())
    assert noted(row) == {"prompt repeated in one of the two answers; kept": 1}
    row = {"prompt": LONG, "chosen": f"{LONG} Two miles.", "rejected": f" {LONG} No."}
    assert noted(row) == {"prompt repeated in one of the two answers; kept": 1}


def conversation(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def test_a_prompt_beside_whole_conversations_is_compared_with_them():
    whole = {"chosen": conversation(LONG, "Two miles."), "rejected": conversation(LONG, "No.")}
    for prompt in (LONG, f"{LONG}\n", conversation(LONG)):
        assert noted({"prompt": prompt, **whole}) == {
            "prompt repeated in the answers; removed once": 1
        }
    assert noted({"prompt": "Be brief.", **whole}) == {
        "prompt not read: the answers contain another conversation": 1
    }
    transcripts = {name: f"\n\nHuman: {LONG}\n\nAssistant: {name}" for name in whole}
    assert noted({"prompt": LONG, **transcripts}) == {
        "prompt repeated in the answers; removed once": 1
    }
    assert noted({"prompt": "Be brief.", **transcripts}) == {
        "prompt not read: the answers contain another conversation": 1
    }


def test_the_last_turns_of_a_prompt_do_not_stand_twice():
    system = {"role": "system", "content": "Be brief."}
    whole = {"chosen": conversation(LONG, "Two miles."), "rejected": conversation(LONG, "No.")}
    row = {"prompt": [system, *conversation(LONG)], **whole}
    assert read_pair(row, "x:1", {}) == Pair(
        f"\n\nSystem: Be brief.\n\nHuman: {LONG}\n\nAssistant:", " Two miles.", " No."
    )
    assert noted(row) == {"prompt repeated in the answers; removed once": 1}


def test_sharegpt_rows_have_their_prompt_in_conversations():
    row = {
        "conversations": [{"from": "human", "value": "Why?"}],
        "chosen": {"from": "gpt", "value": "Because."},
        "rejected": {"from": "gpt", "value": "No."},
    }
    assert read_pair(row, "x:1", {}) == Pair("\n\nHuman: Why?\n\nAssistant:", " Because.", " No.")
    assert noted(row) == {}
    texts = {"conversations": [], "chosen": "a", "rejected": "b"}
    assert noted(texts) == {"columns not read: conversations": 1}


def test_transcripts_without_the_line_breaks_at_their_beginning_are_transcripts():
    texts = [f"\n\nHuman: Is it far?\n\nAssistant: {answer}" for answer in ("Yes, it is.", "Yes.")]
    whole = read_pair({"chosen": texts[0], "rejected": texts[1]}, "x:1", {})
    stripped = read_pair({"chosen": texts[0].strip(), "rejected": texts[1].strip()}, "x:1", {})
    assert isinstance(whole, Pair) and isinstance(stripped, Pair)
    assert stripped == Pair(whole.prompt.lstrip(), whole.chosen, whole.rejected)
    blank = {"chosen": texts[0].strip(), "rejected": "Human: Is it far?\n\nAssistant:"}
    assert isinstance(read_pair(blank, "x:1", {}), Pair), "a blank answer is usable, as before"


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"margin": 1.5}, None),
        ({"score_chosen": 8, "score_rejected": 7.5}, None),
        ({"score_chosen": None, "score_rejected": 7.5}, None),
        ({"margin": "much"}, None),
        ({"margin": -1}, "the scores prefer the rejected answer; kept"),
        ({"score_chosen": 7, "score_rejected": 8}, "the scores prefer the rejected answer; kept"),
        (
            {"chosen_score": "3", "rejected_score": "4"},
            "the scores prefer the rejected answer; kept",
        ),
        ({"chosen_rating": 4, "rejected_rating": 4}, "both answers have the same score; kept"),
        ({"margin": 0.0}, "both answers have the same score; kept"),
        ({"margin": float("nan")}, "a score is not a finite number; not compared"),
        (
            {"score_chosen": "inf", "score_rejected": 1.0},
            "a score is not a finite number; not compared",
        ),
    ],
)
def test_scores_are_compared_with_the_preference(scores, said):
    row = {"prompt": "p", "chosen": "a", "rejected": "b", **scores}
    compared = f"columns compared with the preference, not trained on: {', '.join(scores)}"
    assert noted(row) == {compared: 1} | ({said: 1} if said else {})
