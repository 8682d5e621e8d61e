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


def test_the_form_says_whether_texts_are_transcripts():
    row = {"prompt": "p", "chosen": f"{QUESTION} Because.", "rejected": f"{QUESTION} No."}
    assert read_pair(row, "x:1", {}, "auto") == read_pair(row, "x:1", {}, "hh") == PAIR
    assert read_pair(row, "x:1", {}, "trl") == Pair("p", row["chosen"], row["rejected"])
    begun = {"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"}
    assert read_pair(begun, "x:1", {}, "hh") == Pair("\n\nAssistant:", " a", " b")


def test_an_answer_that_goes_on_after_the_other_ends_keeps_its_first_turn():
    row = {"chosen": [assistant("a")], "rejected": [assistant("a"), user("b")]}
    assert read_pair(row, "x:1", {}) == Pair("\n\nAssistant:", " a", " a\n\nHuman: b")


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
        ("the cat sat", "the cats sat", ("the", " cat sat", " cats sat")),
        ("the cats sat", "the cat sat", ("the", " cats sat", " cat sat")),
        ("\n\nHuman: a b", "\n\nHuman: a c", ("\n\nHuman: a", " b", " c")),
        (f"{QUESTION} No.", "No. Why?", ("", f"{QUESTION} No.", "No. Why?")),
        ("No. Why?", f"{QUESTION} No.", ("", "No. Why?", f"{QUESTION} No.")),
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
        ({"chosen": f"{QUESTION} a", "rejected": f"{QUESTION} a"}, "auto",
         "chosen equals rejected"),
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
        ({"chosen": [{"role": "wizard", "content": "a"}], "rejected": [assistant("b")]}, {},
         "a role of system, user, assistant, tool"),
        ({"chosen": ["a"], "rejected": ["b"]}, {}, "expected {role, content}"),
    ],
)  # fmt: skip
def test_a_row_of_another_form_is_refused_with_its_place(row, renamed, told):
    with pytest.raises(InputError) as error:
        read_pair(row, "x:7", renamed)
    assert told in str(error.value)
    assert str(error.value).startswith("x:7: ")


@pytest.mark.parametrize(
    ("row", "form", "told"),
    [
        ({"good": 3, "bad": "b", "q": "p"}, "auto", "field 'good' is 3; expected a text or a list"),
        ({"good": "a", "bad": 3, "q": "p"}, "auto", "field 'bad' is 3; expected a text or a list"),
        ({"good": "a", "bad": "b", "q": 3}, "auto", "field 'q' is 3; expected a text or a list"),
        ({"good": "a", "bad": ["b"], "q": "p"}, "auto",
         "field 'bad' is ['b']; expected a text, like chosen"),
        ({"good": ["a"], "bad": "b", "q": "p"}, "auto",
         "field 'bad' is 'b'; expected a list, like chosen"),
        ({"good": ["a"], "bad": ["b"], "q": "p"}, "hh",
         "field 'good' is ['a']; expected a transcript"),
        ({"good": "a", "bad": "b", "q": ["p"]}, "auto",
         "field 'q' is ['p']; expected a text, like chosen"),
        ({"good": [assistant("a")], "bad": ["b"], "q": "p"}, "auto",
         "field 'bad' is 'b'; expected {role, content} with a role of system, user, assistant"),
        ({"good": [assistant("a")], "bad": [assistant("b")], "q": [{"role": "user"}]}, "auto",
         "field 'q': message 1 has no content; expected a text (its fields are role)"),
    ],
)  # fmt: skip
def test_a_message_names_the_column_of_the_file_not_ours(row, form, told):
    renamed = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    with pytest.raises(InputError) as error:
        read_pair(row, "x:7", renamed, form)
    assert str(error.value).startswith(f"x:7: {told}")
    ours = {"good": "chosen", "bad": "rejected", "q": "prompt"}
    with pytest.raises(InputError) as error:
        read_pair({ours[name]: value for name, value in row.items()}, "x:7", {}, form)
    for name, our in ours.items():
        told = told.replace(f"'{name}'", f"'{our}'")
    assert str(error.value).startswith(f"x:7: {told}")


def test_a_message_shows_the_beginning_of_a_long_value_and_all_of_a_short_one():
    for length, shown in ((38, "[" + "1" * 38 + "]"), (39, "[" + "1" * 36 + "...")):
        with pytest.raises(InputError) as error:
            read_pair({"chosen": "a", "rejected": [int("1" * length)]}, "x:1", {})
        assert f"field 'rejected' is {shown}; expected" in str(error.value)


def test_a_row_without_fields_says_so_and_suggests_nothing():
    with pytest.raises(InputError) as error:
        read_pair({}, "x:1", {})
    assert str(error.value) == "x:1: field 'chosen' is missing; the row has none"
    with pytest.raises(InputError) as error:
        read_pair({"a": 1}, "x:1", {})
    assert str(error.value) == (
        "x:1: field 'chosen' is missing; the row has a; to read another column, set columns: "
        "{chosen: NAME} in the spec"
    )


def test_columns_can_have_other_names():
    row = {"q": "p", "good": "a", "bad": "b", "prompt": "not this"}
    renamed = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    assert read_pair(row, "x:1", renamed) == Pair("p", "a", "b")
