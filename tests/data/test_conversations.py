"""Messages of every dialect become turns, and what a transcript cannot hold is said."""

import json
from collections import Counter

import pytest

from w2s_ray.data.classification import Text, read_text
from w2s_ray.data.columns import Unusable
from w2s_ray.data.conversations import ROLES, SPEAKERS, Turn, messages_in, read_turns, transcript
from w2s_ray.data.messages import conversations_of
from w2s_ray.data.preference import Pair, read_pair
from w2s_ray.errors import InputError

TRL = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Where is the harbour?"},
    {"role": "assistant", "content": "Behind the mill."},
    {"role": "tool", "content": "3 km"},
]
SHAREGPT = [
    {"from": "system", "value": "Be kind."},
    {"from": "human", "value": "Where is the harbour?"},
    {"from": "gpt", "value": "Behind the mill."},
    {"from": "observation", "value": "3 km"},
]
PARTS = [
    {"role": message["role"], "content": [{"type": "text", "text": message["content"]}]}
    for message in TRL
]
SHOUTED = [{**message, "role": message["role"].upper()} for message in TRL]
WITH_NULLS = [{**message, "name": None, "tool_calls": None} for message in TRL]


def turns(messages: list[object]) -> list[Turn] | Unusable:
    return read_turns(messages, "x:1", "chosen", set())


@pytest.mark.parametrize("messages", [TRL, SHAREGPT, PARTS, SHOUTED, WITH_NULLS])
def test_every_dialect_is_the_same_transcript(messages):
    parsed = turns(messages)
    assert not isinstance(parsed, Unusable)
    assert transcript(parsed) == (
        "\n\nSystem: Be kind.\n\nHuman: Where is the harbour?\n\nAssistant: Behind the mill."
        "\n\nTool: 3 km"
    )


def test_every_alias_is_one_of_our_roles():
    assert set(ROLES.values()) == set(SPEAKERS)
    for alias, role in ROLES.items():
        assert turns([{"from": alias, "value": "a"}]) == [Turn(role, "a")]


def test_parts_of_a_content_are_joined():
    content = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}, " three"]
    assert turns([{"role": "user", "content": content}]) == [Turn("user", "one two three")]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "with tool calls"),
        ({"role": "assistant", "content": "I ask.", "tool_calls": [{"id": 1}]}, "with tool calls"),
        ({"role": "assistant", "content": None, "function_call": {"name": "f"}}, "with tool calls"),
        ({"from": "function_call", "value": "{}"}, "with tool calls"),
        ({"role": "user", "content": [{"type": "image"}]}, "with content of type image"),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "video"}]},
            "with content of type video",
        ),
    ],
)
def test_what_a_transcript_cannot_hold_makes_a_row_unusable(message, reason):
    assert turns([TRL[0], message]) == Unusable(f"{reason} (not supported)")
    row = {"prompt": "p", "chosen": [message], "rejected": [TRL[2]]}
    assert read_pair(row, "x:1", {}) == Unusable(f"{reason} (not supported)")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"role": "assistant"}, "message 2 has no content; expected a text (its fields are role)"),
        (
            {"role": "assistant", "content": None, "tool_calls": []},
            "message 2 has no content; expected a text (its fields are role, content, tool_calls)",
        ),
        ({"role": "user", "content": 7}, "message 2 has content 7; expected a text"),
        ({"content": "a"}, "message 2 has no role; expected {role, content} or {from, value}"),
        ({"role": "asistant", "content": "a"}, "did you mean 'assistant'?"),
        ({"role": 3, "content": "a"}, "message 2 has role 3; expected a role of system, user"),
        ({"role": "user", "content": [{"type": "text"}]}, "the part {'type': 'text'}"),
    ],
)
def test_a_message_without_role_or_text_is_refused_by_number(message, told):
    with pytest.raises(InputError) as error:
        turns([TRL[0], message])
    assert str(error.value).startswith("x:1: field 'chosen': message 2")
    assert told in str(error.value)


@pytest.mark.parametrize("written", [json.dumps, str, lambda value: f" {value} \n"])
def test_messages_written_as_text_are_read_as_messages(written):
    row = {"chosen": TRL[:3], "rejected": [*TRL[:2], {"role": "assistant", "content": "Lost."}]}
    notes = Counter[str]()
    as_text = {name: written(value) for name, value in row.items()}
    assert read_pair(as_text, "x:1", {}, notes=notes) == read_pair(row, "x:1", {})
    assert notes == {"messages written as text; parsed": 1}


def test_a_prompt_and_single_messages_written_as_text_are_read():
    row = {
        "prompt": TRL[:2],
        "chosen": [TRL[2]],
        "rejected": [{"role": "assistant", "content": "?"}],
    }
    expected = read_pair(row, "x:1", {})
    assert read_pair({name: str(value) for name, value in row.items()}, "x:1", {}) == expected
    single = {"prompt": str(TRL[:2]), "chosen": str(TRL[2]), "rejected": str(row["rejected"][0])}
    assert read_pair(single, "x:1", {}) == expected


def test_messages_as_pandas_prints_arrays_are_refused():
    text = "[{'role': 'user', 'content': 'a'}\n {'role': 'assistant', 'content': 'b'}]"
    with pytest.raises(
        InputError, match=r"x:4: field 'chosen' is a list of messages written as"
    ) as e:
        read_pair({"chosen": text, "rejected": text + " "}, "x:4", {})
    assert "\n" not in str(e.value)


def test_text_about_messages_stays_text():
    asked = '[{"role": "user", "content": "a"}] Is this valid JSON?'
    for text in (asked, "[1, 2]", "[", '{"name": "role"}', "role: user"):
        assert messages_in(text, "x:1", "prompt") is None
    notes = Counter[str]()
    row = {"prompt": "Give me JSON.", "chosen": str(TRL[:1]), "rejected": "No."}
    assert read_pair(row, "x:1", {}, notes=notes) == Pair("Give me JSON.", str(TRL[:1]), "No.")
    assert notes == {
        "one of the two answers is a list of messages written as text; kept as text": 1
    }


def test_text_of_code_is_never_run(tmp_path):
    marker = tmp_path / "ran"
    text = f"[{{'role': open({str(marker)!r}, 'w')}}]"
    with pytest.raises(InputError, match="neither JSON nor Python can read"):
        messages_in(text, "x:1", "chosen")
    assert not marker.exists()


def test_fields_of_messages_that_are_not_read_are_named_once_per_row():
    notes = Counter[str]()
    named = [{**message, "name": "ann", "weight": 0} for message in TRL[:2]]
    row = {"prompt": named, "chosen": [TRL[2]], "rejected": [{**TRL[2], "content": "No."}]}
    assert isinstance(read_pair(row, "x:1", {}, notes=notes), Pair)
    assert notes == {"message fields not read: name, weight": 1}


def test_a_labelled_conversation_is_its_transcript():
    notes = Counter[str]()
    for text in (TRL[:3], SHAREGPT[:3], str(TRL[:3])):
        assert read_text({"text": text, "label": 1}, "x:1", {}, notes) == Text(
            "\n\nSystem: Be kind.\n\nHuman: Where is the harbour?\n\nAssistant: Behind the mill.",
            "1",
        )
    assert notes == {"messages written as text; parsed": 1}
    calls = [{"role": "assistant", "tool_calls": [1]}]
    assert isinstance(read_text({"text": calls, "label": 1}, "x:1", {}), Unusable)


WHY = {"role": "user", "content": "Why?"}
ENDS = [{"role": "assistant", "content": text} for text in ("Because.", "No.")]
TRANSCRIPTS = [f"\n\nHuman: Why?\n\nAssistant: {message['content']}" for message in ENDS]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [WHY], "chosen": [ENDS[0]], "rejected": [ENDS[1]]},
        {"prompt": "Why?", "chosen": [ENDS[0]], "rejected": [ENDS[1]]},
        {"prompt": "Why?", "chosen": [WHY, ENDS[0]], "rejected": [WHY, ENDS[1]]},
        {"prompt": [WHY], "chosen": [WHY, ENDS[0]], "rejected": [WHY, ENDS[1]]},
        {"chosen": str([WHY, ENDS[0]]), "rejected": json.dumps([WHY, ENDS[1]])},
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"chosen": TRANSCRIPTS[0], "rejected": TRANSCRIPTS[1]},
        {"prompt": [WHY], "chosen": TRANSCRIPTS[0].strip(), "rejected": TRANSCRIPTS[1].strip()},
        {
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "Because."},
            "rejected": {"from": "gpt", "value": "No."},
        },
    ],
)
def test_every_form_gives_a_chat_template_the_same_messages(row):
    pair = read_pair(row, "x:1", {})
    assert isinstance(pair, Pair)
    assert conversations_of(pair, row, "x:1", {}) == [[WHY, ENDS[0]], [WHY, ENDS[1]]]


def test_texts_without_a_prompt_are_one_message_of_the_user():
    row = {"chosen": "It is a cat.", "rejected": "It is a dog."}
    pair = read_pair(row, "x:1", {})
    assert isinstance(pair, Pair)
    assert conversations_of(pair, row, "x:1", {}) == [
        [{"role": "user", "content": text}] for text in row.values()
    ]


MARKED = "Human: Why?\n\nAssistant:"


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": f"{MARKED} Because.", "rejected": f"{MARKED} No."},
        {"prompt": MARKED, "chosen": " Because.", "rejected": " No."},
        {"prompt": 5, "chosen": f"{MARKED} Because.", "rejected": f"{MARKED} No."},
        {"chosen": f"\n{MARKED} Because.", "rejected": f"\n{MARKED} No."},
        {
            name: f"\n\n{MARKED} {end}".replace("\n", "\r\n")
            for name, end in (("chosen", "Because."), ("rejected", "No."))
        },
        {"prompt": None, "conversations": [WHY], "chosen": [ENDS[0]], "rejected": [ENDS[1]]},
        {"conversations": [WHY], "chosen": "Because.", "rejected": "No."},
        {"conversations": str([WHY]), "chosen": "Because.", "rejected": "No."},
        {"messages": [WHY], "chosen": [ENDS[0]], "rejected": [ENDS[1]]},
    ],
)
def test_a_question_is_never_lost_nor_merged_with_its_marks(row):
    notes = Counter[str]()
    pair = read_pair(row, "x:1", {}, notes=notes)
    assert isinstance(pair, Pair)
    assert " ".join(pair.prompt.split()) == "Human: Why? Assistant:"
    assert conversations_of(pair, row, "x:1", {}) == [[WHY, ENDS[0]], [WHY, ENDS[1]]]
    assert not any(note.startswith("columns not read") for note in notes)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [WHY, ENDS[0]], "chosen": "Because.", "rejected": "No."},
        {"conversations": [WHY], "chosen": [ENDS[0]], "rejected": [WHY, ENDS[1]]},
        {"messages": [WHY], "history": [WHY, WHY], "chosen": "Because.", "rejected": "No."},
    ],
)
def test_unclear_turns_before_the_answers_are_refused(row):
    with pytest.raises(InputError, match="x:1: ") as error:
        read_pair(row, "x:1", {})
    assert "\n" not in str(error.value)
