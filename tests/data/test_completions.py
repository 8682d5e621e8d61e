"""Prompts and completions as tokens: the template's own tokens, the end token, what is cut."""

import pytest

from tests.testing.tokenizer_kinds import byte_level
from w2s_ray.data.completions import completion_tokens, prompt_tokens
from w2s_ray.data.rendering import RowError
from w2s_ray.data.tokens import Tokens
from w2s_ray.errors import InputError

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
END = 7


def tokenizer(template: str | None = TEMPLATE):
    made = byte_level()
    made.add_special_tokens({"bos_token": "<s>"})
    made.chat_template = template
    return made


def pieces(tokens: Tokens) -> list[list[list[int]]]:
    """Of each row, the ids of its prompt and of each answer."""
    found, begin = [], 0
    for sizes in tokens.segments.tolist():
        row = []
        for size in sizes:
            row.append(tokens.ids[begin : begin + size].tolist())
            begin += size
        found.append(row)
    return found


def completed(made, prompts, answers, length=1000, render="transcript") -> Tokens:
    ids = [f"r{i}" for i in range(len(prompts))]
    return completion_tokens(
        ids, prompts, answers, made, render=render, end_id=END, max_length_tokens=length
    )


def test_a_prompt_is_what_transformers_makes_of_it() -> None:
    made, prompts = tokenizer(), ["Say cheese.", "é!", "Say cheese."]
    expected = [
        made.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        for prompt in prompts
    ]
    assert prompt_tokens(made, prompts, "chat_template") == expected
    plain = made(prompts, add_special_tokens=False)["input_ids"]
    assert prompt_tokens(made, prompts, "transcript") == plain


def test_answers_follow_their_prompt_and_end_in_the_end_token() -> None:
    made = tokenizer()
    tokens = completed(made, ["Say it:"], [["yes", ""]], render="chat_template")
    (head,) = prompt_tokens(made, ["Say it:"], "chat_template")
    yes = made("yes", add_special_tokens=False)["input_ids"]
    assert pieces(tokens) == [[head, [*yes, END], [END]]]
    assert (tokens.row_ids, tokens.truncated) == (["r0"], 0)


def test_a_long_prompt_is_cut_on_the_left_equally_for_its_answers_and_keeps_bos() -> None:
    made = tokenizer()
    whole = pieces(completed(made, ["<s>abcdefgh"], [["x", "longer"]]))[0]
    length = len(whole[0]) + len(whole[2]) - 3
    cut = completed(made, ["<s>abcdefgh"], [["x", "longer"]], length)
    assert whole[0][0] == made.bos_token_id
    assert pieces(cut) == [[[whole[0][0], *whole[0][4:]], *whole[1:]]]
    assert cut.truncated == 1


def test_an_answer_that_alone_is_too_long_is_cut_on_the_right_without_end_token() -> None:
    made = tokenizer()
    whole = pieces(completed(made, ["abc", "d"], [["much too long"], ["e"]]))
    cut = completed(made, ["abc", "d"], [["much too long"], ["e"]], 5)
    assert pieces(cut)[0] == [whole[0][0][-1:], whole[0][1][:4]]
    assert pieces(cut)[1] == whole[1]
    assert END not in pieces(cut)[0][1]
    assert cut.truncated == 1


def test_a_missing_template_is_one_line_that_names_the_field() -> None:
    with pytest.raises(InputError, match=r"^training\.render: .*no chat template"):
        prompt_tokens(tokenizer(None), ["x"], "chat_template")


def test_a_template_that_refuses_a_prompt_or_does_not_end_is_named() -> None:
    refuses = tokenizer("{{ raise_exception('no') if 'bad' in messages[0].content else 'ok' }}")
    with pytest.raises(RowError, match=r"^row r1: the chat template refuses it: no$"):
        completed(refuses, ["good", "bad"], [["a"], ["b"]], render="chat_template")
    long = tokenizer("{{ messages[0].content * 100000000 }}")
    with pytest.raises(InputError, match=r"^chat template of tokenizer of the model: "):
        prompt_tokens(long, ["x" * 100], "chat_template")


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(RowError, match=r"^row 2: a prompt without tokens$"):
        prompt_tokens(tokenizer(), ["a", ""], "transcript")
