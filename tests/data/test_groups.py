"""Splits share nothing that the answers of a row cannot change, in whatever form it is written."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from w2s_ray.data.contexts import Context, of_pair, of_text
from w2s_ray.data.groups import continuations, group_names
from w2s_ray.data.preference import Pair
from w2s_ray.data.prepare import SPLITS, Prepared, prepare
from w2s_ray.errors import InputError
from w2s_ray.spec.schema import DataSpec

Rows = list[dict[str, Any]]
WORDS = ("how", "many", "whales", "see", "Tuesday", "old", "tea", "über", "café", "7", "fall")
OPENINGS = ("", "", "I think ", "Sure! It is ", "Well, that depends. My view: ", "As an AI, ")
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}
# Marks of the system, the user and the assistant in texts of other dialects.
DIALECTS = {
    "user and bot": ("System: ", "\nUser: ", "\nBot: "),
    "questions and answers": ("", "\nQ: ", "\nA: "),
    "instructions": ("", "\n\n### Instruction:\n", "\n\n### Response:\n"),
    "one line": ("", " USER: ", " ASSISTANT: "),
    "special tokens": ("<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n"),
    "full width": ("System：", "\nUser：", "\nAI："),
    "brackets": ("<<SYS>>", "[INST] ", "[/INST] "),
}
FORMS = (
    *("prompt", "text so far", "messages", "prompt of messages", "transcript", "stripped"),
    *DIALECTS,
)
# Questions of which it is certain where they end, also where nothing marks it.
COMPLETE = ("?", ".", "!", "?\n", "? ")


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def written(turns: list[dict[str, str]]) -> str:
    return "".join(f"\n\n{SPEAKERS[turn['role']]}: {turn['content']}" for turn in turns)


def in_dialect(form: str, turns: list[dict[str, str]]) -> str:
    """The turns in a dialect of text, to the mark of the answer."""
    marks = dict(zip(("system", "user", "assistant"), DIALECTS[form], strict=True))
    ends = {"system": "<</SYS>>"} if form == "brackets" else {}
    parts = [marks[turn["role"]] + turn["content"] + ends.get(turn["role"], "") for turn in turns]
    return "".join([*parts, marks["assistant"].rstrip(" ")]).lstrip()


def in_form(form: str, turns: list[dict[str, str]], chosen: str, rejected: str) -> dict[str, Any]:
    """A row of a conversation that ends with the user's turn, and two answers to it."""
    if form == "prompt":
        return {"prompt": turns[0]["content"], "chosen": f" {chosen}", "rejected": f" {rejected}"}
    if form in DIALECTS:
        text = in_dialect(form, turns)
        return {"prompt": text, "chosen": f" {chosen}", "rejected": f" {rejected}"}
    if form == "text so far":
        text = "\n".join(turn["content"] for turn in turns)
        return {"prompt": text, "chosen": f"\n{chosen}", "rejected": f"\n{rejected}"}
    if form == "implicit":
        question = turns[0]["content"] + " "
        return {"chosen": question + chosen, "rejected": question + rejected}
    ends = message("assistant", chosen), message("assistant", rejected)
    if form == "messages":
        return {"chosen": [*turns, ends[0]], "rejected": [*turns, ends[1]]}
    if form == "prompt of messages":
        return {"prompt": turns, "chosen": [ends[0]], "rejected": [ends[1]]}
    texts = {"chosen": written([*turns, ends[0]]), "rejected": written([*turns, ends[1]])}
    return {name: t.strip() for name, t in texts.items()} if form == "stripped" else texts


def spaced(text: str, draw: random.Random) -> str:
    """The text with other white space: to a reader it is the same."""
    return "".join(draw.choice((" ", "  ", "\n", " \t")) if c == " " else c for c in text)


@st.composite
def conversations(draw: st.DrawFn, forms: tuple[str, ...]) -> list[tuple[str, set[str], Any]]:
    """Rows, each with a number that its answers carry and the questions that it is about."""
    source = random.Random(draw(st.integers(0, 2**32)))
    ends = COMPLETE if "implicit" in forms else ("", *COMPLETE)
    rows: list[tuple[str, set[str], Any]] = []
    for number in range(draw(st.integers(1, 14))):
        question = f"Q{number}x " + " ".join(source.choices(WORDS, k=source.randint(2, 8)))
        turns = [message("user", question.strip() + source.choice(ends))]
        if source.random() < 0.3 and "implicit" not in forms:
            turns.insert(0, message("system", f"You are number {source.random()}."))
        for _ in range(source.randint(1, 4)):
            form = source.choice(forms)
            if form in ("prompt", "implicit") and len(turns) > 1:
                continue  # these forms have no turns
            if form == "text so far" and turns[0]["role"] == "system":
                continue
            if turns[0]["role"] == "system" and source.random() < 0.5:
                turns = [message("system", f"You are number {source.random()}."), *turns[1:]]
            opening, tag = source.choice(OPENINGS), f"row{len(rows)}end"
            row = in_form(form, turns, f"{opening}yes {tag}", f"{opening}no, {tag}")
            if source.random() < 0.3 and form in ("prompt", "text so far"):
                row["prompt"] = spaced(row["prompt"], source)
            rows.append((tag, {f"Q{number}x"}, row))
            if form not in ("prompt", "implicit") and source.random() < 0.5:
                said = message("assistant", f"{source.choice(OPENINGS)}so it is.")
                turns = [*turns, said, message("user", " ".join(source.choices(WORDS, k=4)))]
                if source.random() < 0.3:
                    turns = [*turns[:-2], message("assistant", "Other."), turns[-1]]
    source.shuffle(rows)
    return rows


def prepared(folder: Path, rows: Rows, sizes: tuple[int, int, int], **more: Any) -> Prepared:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {"kind": "preference", "source": str(path), **more}
    return prepare(
        DataSpec.model_validate({**spec, "sizes": dict(zip(SPLITS, sizes, strict=True))})
    )


def subjects(prepared: Prepared, about: dict[str, set[str]]) -> dict[str, set[str]]:
    """What the rows of each split are about, found by the number in their answers."""
    found: dict[str, set[str]] = {}
    for split, table in prepared.tables.items():
        answers = [" ".join(row) for row in table["answers"].to_pylist()]
        tags = [next(tag for tag in about if tag in text) for text in answers]
        found[split] = set().union(*(about[tag] for tag in tags))
    return found


def nothing_shared(folder: Path, rows: list[tuple[str, set[str], Any]]) -> None:
    about = {tag: subject for tag, subject, _ in rows}
    try:
        result = prepared(folder, [row for _, _, row in rows], (3, 2, 2))
    except InputError as error:
        if "too few rows" not in str(error):
            raise
        return
    of = subjects(result, about)
    for first, second in (("ground_truth", "test"), ("weak", "test"), ("ground_truth", "weak")):
        assert of[first].isdisjoint(of[second])


FIXED = [HealthCheck.function_scoped_fixture]


@settings(max_examples=60, suppress_health_check=FIXED, deadline=None)
@given(rows=st.sampled_from(FORMS).flatmap(lambda form: conversations((form,))))
def test_no_conversation_is_in_two_splits_in_any_form(tmp_path, rows):
    nothing_shared(tmp_path, rows)


@settings(max_examples=40, suppress_health_check=FIXED, deadline=None)
@given(rows=conversations(FORMS))
def test_no_conversation_is_in_two_splits_in_mixed_forms(tmp_path, rows):
    nothing_shared(tmp_path, rows)


@settings(max_examples=40, suppress_health_check=FIXED, deadline=None)
@given(rows=conversations(("implicit", "prompt")))
def test_no_complete_question_is_in_two_splits_of_plain_texts(tmp_path, rows):
    nothing_shared(tmp_path, rows)


@settings(max_examples=40, suppress_health_check=FIXED, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=25))
def test_pairs_of_questions_without_a_prompt_are_apart_by_both(tmp_path, asked):
    """The users' turns differ, so the prompt is only an opening; each of both is kept together."""
    rows: list[tuple[str, set[str], Any]] = []
    for number, (one, other) in enumerate(asked):
        tag, names = f"row{number}end", (f"Q{one}x", f"Q{other}y")
        turns = [[message("user", name), message("assistant", f"{name} {tag}")] for name in names]
        rows.append((tag, set(names), {"chosen": turns[0], "rejected": turns[1]}))
    nothing_shared(tmp_path, rows)


@settings(max_examples=25, suppress_health_check=FIXED, deadline=None)
@given(rows=conversations(FORMS), seed=st.integers(0, 9))
def test_the_order_of_rows_changes_no_split(tmp_path, rows, seed):
    plain = [row for _, _, row in rows]
    shuffled = random.Random(seed).sample(plain, len(plain))
    results = []
    for order in (plain, shuffled):
        try:
            results.append(prepared(tmp_path, order, (2, 2, 1), seed=seed).tables)
        except InputError:
            results.append({})
    assert results[0] == results[1]


@pytest.mark.parametrize("other", [*FORMS, "implicit"])
def test_given_splits_share_the_prompts_of_another_form(tmp_path, other):
    turns = [[message("user", f"Who was number {n}?")] for n in range(6)]
    splits = {}
    for split, form in zip(SPLITS, ("messages", other, "prompt"), strict=True):
        opening = OPENINGS[len(split) % 3 + 2]
        rows = [in_form(form, t, f"{opening}A {split}", f"{opening}B {split}") for t in turns]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        splits[split] = [str(tmp_path / f"{split}.jsonl")]
    report = prepare(DataSpec.model_validate({"kind": "preference", "splits": splits})).report
    assert report["overlap"]["any"] == {"prompts": 6, "share": 1.0}
    guessed = [report["splits"][split]["guessed_groups"] for split in SPLITS]
    assert guessed == [0, 6 if other == "implicit" else 0, 0]


def same_group(*contexts: Context) -> bool:
    return len(set(group_names(contexts))) == 1


def given_prompt(prompt: str) -> Context:
    return of_pair(Pair(prompt, " a", " b"), prompt)


def implicit(question: str, opening: str = "") -> Context:
    """Two texts without a prompt, divided as the reader of pairs divides them."""
    common = f"{question} {opening}".rstrip()
    return of_pair(Pair(common, " yes it is", " no it is not"), None)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("What now?", "What  now? \n", True),  # white space
        ("caf\u00e9", "cafe\u0301", True),  # the same letters, composed and not
        ("What now?", "what now?", False),  # case
        ("What now?", "What then?", False),
        ("What now?", "What now? That.\nAnd then?", True),  # continued
        ("What now?\nBot:", "What now?\nBot: That.\nMe: And then?\nBot:", True),
        ("p1", "p11", False),  # within a word
        ("p1", "p1 and p2", True),
    ],
)
def test_prompts_that_are_one(first, second, together):
    assert same_group(given_prompt(first), given_prompt(second)) is together


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What now?", "\ufeffWhat\u200b now?"),  # nobody sees them
        ("What now?", "What\u00ad now?\u2060"),
        ("What now (or then)?", "What\u3000now （or then）？"),  # width
        ("\u2764 now?", "\u2764\ufe0f now?"),  # how a sign is drawn
    ],
)
def test_what_a_reader_does_not_see_makes_no_other_prompt(first, second):
    assert same_group(given_prompt(first), given_prompt(second))
    assert same_group(of_text(first), of_text(second))
    assert same_group(implicit(first, "I think"), implicit(second))
    talk = "Human: {}\n\nAssistant:"
    assert same_group(given_prompt(first), given_prompt("\ufeff" + talk.format(second)))


QUESTION = "How big is a whale?"


@pytest.mark.parametrize(
    ("prompt", "is_guess"),
    [
        ("User: {}", False),
        ("**User:** {}\n**Assistant:** x\n**User:** go on", False),
        ("Human: {}\nAI: x\nHuman: go on\nAI:", False),
        ("Q1: {}\nA1: x\nQ2: And a cat?\nA2:", False),
        ("Below is a task.\n\n### Instruction:\n{}\n\n### Input:\n\n### Response:", False),
        ("<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n{} [/INST] x </s>[INST] go on [/INST]", False),
        ("<|im_start|>system\nA bot<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n", False),
        ("<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n", False),
        ("{}\nAnswer:", False),
        ("{}\nBot: x\nUser: go on", True),  # the system may have begun
        ("You are a bot.\nUser: {}\nBot:", True),  # so may the user
        ("A chat of two. USER: {} ASSISTANT: x</s>USER: go on ASSISTANT:", True),
    ],
)
def test_a_prompt_in_a_dialect_is_its_users_first_question(prompt, is_guess):
    context = given_prompt(prompt.format(QUESTION))
    assert same_group(context, given_prompt(QUESTION))
    assert not same_group(context, given_prompt(prompt.format("How big is a cat?")))
    assert context.is_guess is is_guess


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Which?\nA: tea\nB: milk", "Which?\nA: cake\nB: milk"),  # choices
        ("User: Which?\nA: tea\nB: milk\nBot:", "User: Which?\nA: cake\nB: milk\nBot:"),
        ("### Instruction:\nSum.\n### Input:\n1 2", "### Instruction:\nSum.\n### Input:\n3"),
        ("Context: a b.\nQuestion: Who?\nAnswer:", "Context: c d.\nQuestion: Who?\nAnswer:"),
        ("Write code.\nInput: a\nOutput: b c", "Write code.\nInput: d\nOutput: b c"),
        ("Bot: Tea?\nUser: Yes.", "Bot: Milk?\nUser: Yes."),  # what is answered
    ],
)
def test_prompts_with_marks_that_are_not_one(first, second):
    assert not same_group(given_prompt(first), given_prompt(second))


def test_plain_texts_in_a_dialect_are_one_with_their_question():
    for start in ("User: {}\nBot:", "A bot.\nUser: {}\nBot: x\nUser: go on\nBot:", "Q: {}\nA:"):
        assert same_group(implicit(start.format(QUESTION), "I"), given_prompt(QUESTION))


def test_a_prompt_between_two_connects_them():
    texts = ("Tell me of whales.", "Tell me of whales. Big.\nMore?", "Tell me of tea.")
    names = group_names([given_prompt(text) for text in texts])
    assert names[0] == names[1] != names[2]
    assert list(continuations([given_prompt("a b"), given_prompt("a"), given_prompt("a b c")])) == [
        (given_prompt("a b"), given_prompt("a")),
        (given_prompt("a b c"), given_prompt("a b")),
    ]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (implicit("Is tea old?", "I think"), implicit("Is tea old?", "Sure."), True),
        (implicit("Is tea old?"), implicit("Is coffee old?"), False),
        (implicit("Is tea old?"), given_prompt("Is tea old? Say why."), True),
        (implicit("In a line\nI think"), implicit("In a line\nSure"), True),
        (implicit("Context:\na b\nQ"), implicit("Context:\nc d\nQ"), False),
        (implicit("name a big whale", "I"), implicit("name a big whale", "My favourite"), True),
        (implicit("name a big whale"), implicit("name a small teapot"), False),
        (implicit("Question: a. b?\nAnswer:", "I"), implicit("Question: a. b?\nAnswer:"), True),
        (implicit("Question: a. b?\nAnswer:"), implicit("Question: a. c?\nAnswer:"), False),
        (implicit("[INST] a. b [/INST]"), implicit("[INST] a. c [/INST]"), False),
    ],
)
def test_beginnings_of_plain_texts_that_are_one(first, second, together):
    assert same_group(first, second) is together
    assert first.is_guess


def test_scripts_without_spaces_have_sentences_too():
    def pair(question: str, opening: str) -> Context:
        return of_pair(Pair("", f"{question}{opening}红的", f"{question}{opening}蓝的"), None)

    assert same_group(pair("盒子3是什么颜色？", "我想"), pair("盒子3是什么颜色？", ""))
    assert not same_group(pair("盒子3是什么颜色？", ""), pair("盒子4是什么颜色？", ""))
    assert same_group(pair("请说出一只大鲸鱼的名字", "我"), pair("请说出一只大鲸鱼的名字", ""))


def test_texts_to_classify_are_one_by_what_the_user_said_first():
    assert same_group(of_text("Q: a b\nA: c"), of_text("Question: a b\nAnswer: d"))
    talk = "\n\nHuman: Is tea old?\n\nAssistant: {}"
    assert same_group(of_text(talk.format("Yes.")), of_text(talk.format("No.").strip()))
    assert same_group(of_text("a  b"), of_text("a b\n"))
    assert not same_group(of_text("a b"), of_text("a b c"))


def test_a_column_of_groups_decides_alone(tmp_path):
    rows: Rows = [
        {"chosen": f"Same. {n} a", "rejected": f"Same. {n} b", "talk": n // 3} for n in range(30)
    ]
    with pytest.raises(InputError, match=r"30 rows have no prompt.*a guess.*columns\.group"):
        prepared(tmp_path, rows, (6, 6, 6))
    result = prepared(tmp_path, rows, (6, 6, 6), columns={"group": "talk"})
    prompts = {split: result.tables[split]["prompt"].to_pylist() for split in SPLITS}
    talks = [{int(prompt.split()[-1]) // 3 for prompt in prompts[split]} for split in SPLITS]
    assert sum(map(len, talks)) == len(set().union(*talks)) == 6
    assert all(of["guessed_groups"] == 0 for of in result.report["splits"].values())
    with pytest.raises(InputError, match=r"rows\.jsonl:30: field 'talk' has no value"):
        prepared(
            tmp_path, [*rows[:29], {**rows[29], "talk": None}], (1, 1, 1), columns={"group": "talk"}
        )


def test_rows_that_say_which_group_they_are_in_may_differ_in_all_else(tmp_path):
    rows = [{"text": f"text {n}", "label": n % 2, "author": f"a{n % 4}"} for n in range(40)]
    more = {"kind": "classification", "columns": {"group": "author"}}
    result = prepared(tmp_path, rows, (10, 10, 10), **more)
    authors = [
        {int(text.split()[1]) % 4 for (text,) in result.tables[split]["answers"].to_pylist()}
        for split in SPLITS
    ]
    assert [len(of) for of in authors] == [1, 1, 1] and len(set().union(*authors)) == 3
