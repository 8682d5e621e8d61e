"""Every format of preference pairs becomes the same (prompt, chosen, rejected)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s_ray.data.columns import Unusable
from w2s_ray.data.preference import Pair, read_pair
from w2s_ray.errors import InputError

QUESTION = "\n\nHuman: Why?\n\nAssistant:"
PAIR = Pair(QUESTION, " Because.", " No.")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": QUESTION, "chosen": " Because.", "rejected": " No."},
        {"chosen": f"{QUESTION} Because.", "rejected": f"{QUESTION} No."},
        {"prompt": "Why?", "chosen": f"{QUESTION} Because.", "rejected": f"{QUESTION} No."},
        {
            "prompt": [user("Why?")],
            "chosen": [assistant("Because.")],
            "rejected": [assistant("No.")],
        },
        {"prompt": "Why?", "chosen": [assistant("Because.")], "rejected": [assistant("No.")]},
        {
            "chosen": [user("Why?"), assistant("Because.")],
            "rejected": [user("Why?"), assistant("No.")],
        },
        {
            "prompt": [user("Why?")],
            "chosen": [user("Why?"), assistant("Because.")],
            "rejected": [user("Why?"), assistant("No.")],
        },
        {
            "prompt": "only the words of the question",
            "chosen": [user("Why?"), assistant("Because.")],
            "rejected": [user("Why?"), assistant("No.")],
        },
    ],
    ids=["explicit", "hh", "hh+prompt", "turns", "text+turns", "implicit", "repeated", "both"],
)
def test_one_conversation_in_every_format_is_one_pair(row):
    assert read_pair(row, "x:1", {}) == PAIR


def test_the_prompt_of_a_transcript_ends_with_the_last_shared_assistant():
    first = f"{QUESTION} Because.\n\nHuman: Really?\n\nAssistant:"
    row = {"chosen": f"{first} Yes.", "rejected": f"{first} You bet."}
    assert read_pair(row, "x:1", {}) == Pair(first, " Yes.", " You bet.")
    longer = {"chosen": f"{first} Yes.", "rejected": f"{QUESTION} Because I say so."}
    assert read_pair(longer, "x:1", {}) == Pair(
        QUESTION, " Because.\n\nHuman: Really?\n\nAssistant: Yes.", " Because I say so."
    )


def test_conversations_share_turns_and_keep_what_follows():
    row = {
        "chosen": [user("Why?"), assistant("Guess."), user("No."), assistant("Because.")],
        "rejected": [user("Why?"), assistant("Guess."), user("Never."), assistant("Fine.")],
    }
    assert read_pair(row, "x:1", {}) == Pair(
        "\n\nHuman: Why?\n\nAssistant: Guess.\n\nHuman:",
        " No.\n\nAssistant: Because.",
        " Never.\n\nAssistant: Fine.",
    )


def test_a_system_turn_and_unlike_speakers_are_written_out():
    system = {"role": "system", "content": "Be brief."}
    row = {"chosen": [system, assistant("Hi.")], "rejected": [system, user("Hi.")]}
    assert read_pair(row, "x:1", {}) == Pair(
        "\n\nSystem: Be brief.", "\n\nAssistant: Hi.", "\n\nHuman: Hi."
    )


@pytest.mark.parametrize(
    ("chosen", "rejected", "pair"),
    [
        ("The sky is blue.", "The sky is brown.", ("The sky is", " blue.", " brown.")),
        ("The cats sleep.", "The cats sleeps.", ("The cats", " sleep.", " sleeps.")),
        ("hello there", "hello there friend", ("hello", " there", " there friend")),
        ("yes", "no", ("", "yes", "no")),
        ("blue", "brown", ("", "blue", "brown")),
    ],
)
def test_an_implicit_prompt_ends_before_a_whole_word(chosen, rejected, pair):
    assert read_pair({"chosen": chosen, "rejected": rejected}, "x:1", {}) == Pair(*pair)


@given(st.text(alphabet="ab \n", max_size=12), st.text(alphabet="ab \n", max_size=12))
def test_whatever_is_split_off_no_letter_is_lost(chosen, rejected):
    pair = read_pair({"chosen": chosen, "rejected": rejected}, "x:1", {}, "trl")
    if isinstance(pair, Unusable):
        assert not chosen or not rejected or chosen == rejected
    else:
        assert (pair.prompt + pair.chosen, pair.prompt + pair.rejected) == (chosen, rejected)
        assert "" not in (pair.chosen, pair.rejected)


@pytest.mark.parametrize(
    ("row", "form", "reason"),
    [
        ({"prompt": "p", "chosen": "", "rejected": "b"}, "auto", "empty answer"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "auto", "chosen equals rejected"),
        ({"chosen": "a", "rejected": "a"}, "auto", "chosen equals rejected"),
        ({"chosen": f"{QUESTION} a", "rejected": QUESTION}, "auto", "empty answer"),
        (
            {"chosen": f"{QUESTION} a", "rejected": "\n\nHuman: Who?\n\nAssistant: a"},
            *("auto", "no common prompt"),
        ),
        ({"chosen": "a b", "rejected": "a c"}, "hh", "no common prompt"),
        ({"prompt": "p", "chosen": [assistant("")], "rejected": [assistant("b")]}, "auto",
         "empty answer"),
        ({"prompt": "p", "chosen": [], "rejected": [assistant("b")]}, "auto", "empty answer"),
        ({"chosen": [user("a")], "rejected": [user("a")]}, "auto", "chosen equals rejected"),
    ],
)  # fmt: skip
def test_a_sound_row_that_teaches_nothing_is_told_by_reason(row, form, reason):
    assert read_pair(row, "x:1", {}, form) == Unusable(reason)


@pytest.mark.parametrize(
    ("row", "renamed", "told"),
    [
        ({"choosen": "a", "rejected": "b"}, {}, "x:7: field 'chosen' is missing; the row has "
         "choosen, rejected; did you mean 'choosen'?"),
        ({"good": "a", "bad": "b"}, {"chosen": "good", "rejected": "bda"}, "did you mean 'bad'?"),
        ({"chosen": "a", "rejected": None}, {}, "x:7: field 'rejected' has no value"),
        ({"chosen": "a", "rejected": "b"}, {"prompt": "q"}, "field 'q' is missing"),
        ({"chosen": 3, "rejected": "b"}, {}, "field 'chosen' is 3; expected a text or a list"),
        ({"chosen": "a", "rejected": ["b"]}, {}, "field 'rejected' is ['b']; expected a text"),
        ({"prompt": 1, "chosen": "a", "rejected": "b"}, {}, "field 'prompt' is 1"),
        ({"chosen": [{"role": "bot", "content": "a"}], "rejected": [assistant("b")]}, {},
         "a role of system, user, assistant, tool"),
        ({"chosen": ["a"], "rejected": ["b"]}, {}, "expected {role, content}"),
    ],
)  # fmt: skip
def test_a_row_of_another_form_is_refused_with_its_place(row, renamed, told):
    with pytest.raises(InputError) as error:
        read_pair(row, "x:7", renamed)
    assert told in str(error.value)
    assert str(error.value).startswith("x:7: ")


def test_columns_can_have_other_names():
    row = {"q": "p", "good": "a", "bad": "b", "prompt": "not this"}
    renamed = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    assert read_pair(row, "x:1", renamed) == Pair("p", "a", "b")
