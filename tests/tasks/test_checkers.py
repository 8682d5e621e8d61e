"""Each rule family accepts an answer that follows its rule and refuses near misses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s_ray.errors import InputError
from w2s_ray.tasks.families import (
    FAMILIES,
    TRAIN_FAMILIES,
    TRANSFER_FAMILIES,
    follows,
    verify_check,
)

# check -> (answers that follow it, answers that do not)
CASES = [
    (
        {"family": "lowercase"},
        ["the sea is 3 km away.", "  élan vital \n"],
        ["The sea.", "the seA", "ÉLAN", "123", "ǅ and more"],
    ),
    (
        {"family": "uppercase"},
        ["THE SEA IS 3 KM AWAY.", "ÉLAN\n"],
        ["THE SEa", "the sea", "STRAßE", "123", "ǅ AND MORE"],
    ),
    (
        {"family": "no_commas"},
        ["Salt and pepper; no more."],
        ["Salt, pepper.", "Salt， pepper", "盐、胡椒", "ملح، فلفل"],
    ),
    (
        {"family": "at_most_words", "n": 3},
        ["one two three", " one\ttwo\nthree \n", "one"],
        ["one two three four", "- one two three"],
    ),
    (
        {"family": "sentence_count", "n": 2},
        ["It rains. Take care!", 'He said "Stop!" Then he left.', "Wait... what?\n", "A.\n\nB?"],
        ["It rains.", "It rains. It pours. Go!", "It rains. Take care", "It rains.Take care."],
    ),
    (
        {"family": "end_phrase", "phrase": "That is all."},
        ["Salt is white. That is all.", "Salt. That is all. \n"],
        ["That is all.", "Salt. That is all", "Salt. that is all.", "Salt. That is all. Bye."],
    ),
    (
        {"family": "bullet_points", "n": 2},
        ["Salt:\n- white\n- fine", "* a\n  • b", "- a\n\n- b\n"],
        ["- a", "- a\n- b\n- c", "-a\n-b", "- a\n- ", "1. a\n2. b"],
    ),
    (
        {"family": "numbered_list", "n": 2},
        ["Salt:\n1. white\n2. fine", "1) a\n2) b"],
        ["1. a", "1. a\n2. b\n3. c", "2. a\n1. b", "1.a\n2.b", "1. a\n1. b", "- a\n- b"],
    ),
    (
        {"family": "keyword_count", "word": "small", "n": 2},
        ["Small towns, small roads.", "small-small"],
        ["A small town.", "Smaller and smallest.", "small_town small"],
    ),
    (
        {"family": "without_word", "word": "the"},
        ["Other people bathe there.", "Salt"],
        ["The sea.", "in the sea", "the-sea"],
    ),
    (
        {"family": "without_letter", "letter": "e"},
        ["Salt is a solid.", "ALL"],
        ["Sea", "SEA", "café", "Élan"],
    ),
    (
        {"family": "in_quotes"},
        ['"Salt is white."', ' "a" \n', "“Salt is white.”"],
        ['"Salt', 'Salt"', '"Salt" is "white"', "'Salt'", '"', '""', '“Salt"'],
    ),
    (
        {"family": "json_object", "keys": ["name", "use"]},
        ['{"use": "food", "name": "salt"}', '```json\n{"name": 1, "use": null}\n```'],
        [
            '{"name": "salt"}',
            '{"name": 1, "use": 2, "more": 3}',
            'Here: {"name": 1, "use": 2}',
            "{'name': 1, 'use': 2}",
            '["name", "use"]',
            '{"name": NaN, "use": 1}',
            '{"name": ' + "[" * 100_000,
        ],
    ),
    (
        {"family": "title"},
        ["<<Salt>>\nIt is white.", "See << Salt >>."],
        ["<Salt>", "<<>> Salt", "<< >> Salt", "<<Salt", "<<Sa\nlt>>"],
    ),
    (
        {"family": "first_word", "word": "Today"},
        ["Today salt is cheap.", '"Today, salt', "**today** it is"],
        ["Salt today", "Todays salt", "To day", "... Today"],
    ),
    (
        {"family": "postscript"},
        ["Salt is white.\n\nP.S. And fine.", "Salt\nP.S.\nMore."],
        ["P.S. Salt", "Salt P.S. more", "Salt\nP.S.", "Salt\nPS: more", "Salt\np.s. more"],
    ),
]


def ids(case):
    return case[0]["family"]


def test_each_family_has_cases():
    assert {check["family"] for check, _, _ in CASES} == set(FAMILIES)
    assert len(TRAIN_FAMILIES) >= 8 and len(TRANSFER_FAMILIES) >= 4


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_answers_that_follow_the_rule_and_near_misses(case):
    check, right, wrong = case
    verify_check(check, "here")
    assert [text for text in right if not follows(check, text)] == []
    assert [text for text in wrong if follows(check, text)] == []


@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("text", ["", " \n", "...", '""', "- \n- "])
def test_an_answer_without_a_letter_or_digit_follows_no_rule(case, text):
    assert not follows(case[0], text)


@pytest.mark.parametrize("case", CASES, ids=ids)
@given(text=st.text())
def test_any_answer_has_a_verdict_that_blanks_around_it_do_not_change(case, text):
    verdict = follows(case[0], text)
    assert verdict is follows(case[0], text)
    assert follows(case[0], f" \n{text}\n ") is verdict


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_generated_checks_are_valid_and_worded(family):
    for parameters in family.choices:
        verify_check({"family": family.name, **parameters}, "here")
        assert "{" not in family.sentence(parameters)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({}, "check without family, expected one of lowercase"),
        ({"family": "no_comas"}, "did you mean 'no_commas'"),
        ({"family": 3}, "family of check: 3, expected one of"),
        ({"family": "at_most_words"}, "check of at_most_words without n"),
        ({"family": "at_most_words", "n": 0}, "n of check: 0, expected a whole number"),
        ({"family": "at_most_words", "n": True}, "n of check: True, expected a whole number"),
        ({"family": "at_most_words", "n": 2, "m": 3}, "'m' in check of at_most_words"),
        ({"family": "lowercase", "n": 2}, "which takes no parameter"),
        ({"family": "without_letter", "letter": "ab"}, "expected one letter"),
        ({"family": "without_word", "word": " "}, "expected a text without blanks"),
        ({"family": "json_object", "keys": "name"}, "expected a list of 1 to 100"),
        ({"family": "json_object", "keys": ["a", "a"]}, "different texts"),
    ],
)
def test_a_check_that_is_none_is_one_line(check, message):
    with pytest.raises(InputError, match=r"^file:3: ") as error:
        verify_check(check, "file:3")
    assert message in str(error.value)
