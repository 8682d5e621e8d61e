"""Chat templates: tokens are those of the rendered conversation, and no template runs code."""

from typing import Any

import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerFast

from tests.testing.tokenizer_kinds import byte_level, sentencepiece_bpe
from w2s_ray.data.rendering import Rendering, RowError, check_rendering
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.errors import InputError

CHAT = Rendering("chat_template")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message.role }}|>\n{{ message.content }}<|end|>\n"
    "{% endfor %}"
)


def with_template(template: str, **settings: Any) -> PreTrainedTokenizerFast:
    tokenizer = byte_level()
    tokenizer.chat_template = template
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    return tokenizer


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def rows(*conversations: list[list[dict[str, str]]]) -> pa.Table:
    """Rows with these conversations of each text; the transcripts beside them are not read."""
    return pa.table(
        {
            "row_id": [f"row{i}" for i in range(len(conversations))],
            "prompt": ["not read"] * len(conversations),
            "answers": [["not read"] * len(of_row) for of_row in conversations],
            "messages": conversations,
        }
    )


def texts(tokens: Tokens, tokenizer: PreTrainedTokenizerFast) -> list[list[str]]:
    """The texts of each row, spelled."""
    found = []
    for start, (prompt, *answers) in zip(tokens.starts, tokens.segments, strict=True):
        head, begin = tokens.ids[start : start + prompt], start + prompt
        of_row = []
        for answer in answers:
            of_row.append(tokenizer.decode([*head, *tokens.ids[begin : begin + answer]]))
            begin += answer
        found.append(of_row)
    return found


QUESTION = message("user", "Which box?")
PAIR = [[QUESTION, message("assistant", answer)] for answer in ("The left one.", "The blue one.")]


@pytest.mark.parametrize("make", [byte_level, lambda: sentencepiece_bpe("first")])
def test_each_text_is_its_conversation_and_the_beginning_is_shared(make) -> None:
    tokenizer = make()
    tokenizer.chat_template, tokenizer.bos_token = TEMPLATE, "<s>"
    tokens = encode(rows(PAIR), tokenizer, 500, CHAT)
    whole = "<s><|user|>\nWhich box?<|end|>\n<|assistant|>\n{}<|end|>\n"
    assert texts(tokens, tokenizer) == [
        [whole.format("The left one."), whole.format("The blue one.")]
    ]
    head = tokenizer.decode(tokens.ids[: tokens.segments[0, 0]])
    assert head.startswith(whole.split("{}")[0])
    expected = tokenizer.apply_chat_template(PAIR[0], tokenize=True, return_dict=False)
    assert tokens.ids[: tokens.text_lengths[0, 0]].tolist() == expected


def test_one_text_a_row_has_no_prompt() -> None:
    tokenizer = with_template(TEMPLATE)
    tokens = encode(rows([[QUESTION]], [[message("user", "x")]]), tokenizer, 500, CHAT)
    assert tokens.segments[:, 0].tolist() == [0, 0]
    assert texts(tokens, tokenizer)[1] == ["<|user|>\nx<|end|>\n"]


def test_the_day_of_reading_changes_nothing() -> None:
    dated = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}: {% endif %}" + TEMPLATE
    tokenizer = with_template(dated)
    ((text, _),) = texts(encode(rows(PAIR), tokenizer, 500, CHAT), tokenizer)
    assert text.startswith("26 Jul 2024: <|user|>")
    blanks = with_template("\n  {% if true %}a{% endif %}{{ strftime_now('%B') }} b")
    plain = with_template("\n  {% if true %}a{% endif %}July b")
    for tokenizer in (blanks, plain):
        ((text, _),) = texts(encode(rows(PAIR), tokenizer, 500, CHAT), tokenizer)
        assert text == "\naJuly b"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.nothing.at_all }}", "nothing"),
        ("{% for %}", "Expected"),
        ("{{ ''.__class__.__mro__ }}{{ cycler.__init__.__globals__.os.getcwd() }}", "unsafe"),
    ],
)
def test_a_template_that_fails_names_the_row(template: str, reason: str) -> None:
    with pytest.raises(RowError, match=reason) as error:
        encode(rows(PAIR), with_template(template), 500, CHAT)
    assert error.value.row_id == "row0" and "\n" not in str(error.value)


def test_rows_without_messages_have_no_chat() -> None:
    with pytest.raises(ValueError, match="without messages"):
        encode(rows(PAIR).drop_columns("messages"), with_template(TEMPLATE), 500, CHAT)


def test_what_a_tokenizer_lacks_is_refused() -> None:
    plain = byte_level()
    check_rendering(plain, Rendering(), "t")
    with pytest.raises(InputError, match=r"training.render: tokenizer t has no chat template"):
        check_rendering(plain, CHAT, "t")
    with pytest.raises(InputError, match=r"training.bos: tokenizer t has no BOS token") as error:
        check_rendering(plain, Rendering(bos=True), "t")
    assert error.value.place == ("training", "bos")
    check_rendering(with_template(TEMPLATE), CHAT, "t")
    check_rendering(with_template(TEMPLATE, bos_token="!"), Rendering(bos=True), "t")
