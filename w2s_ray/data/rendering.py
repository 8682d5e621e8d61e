"""How a row becomes texts for a tokenizer: as a transcript, or by the model's own chat template.

A transcript is the text that ``prepare`` wrote, the same characters for every model. A chat
template is a program of the model (jinja), run in transformers' sandbox on the messages of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pyarrow as pa

from w2s_ray.errors import InputError
from w2s_ray.foreign.templates import check_template
from w2s_ray.spec.training import Render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# A text must not depend on the day on which it is read, so a template that writes today's date gets
# this one. A macro takes precedence over the function of that name that transformers hands in.
_DATE = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24"}
_FIXED_DATE = (
    "{% macro strftime_now(form) %}{{ form"
    + "".join(f'|replace("{code}", "{value}")' for code, value in _DATE.items())
    + " }}{% endmacro %}\n"
)


class RowError(ValueError):
    """A row that this tokenizer cannot read.

    Attributes:
        row_id: of the row.
        reason: what is wrong with it, for messages.
    """

    def __init__(self, row_id: str, reason: str) -> None:
        super().__init__(row_id, reason)
        self.row_id, self.reason = row_id, reason

    def __str__(self) -> str:
        return f"row {self.row_id}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Rendering:
    """How texts are made of rows, and whether each begins with the tokenizer's BOS token."""

    FIELDS: ClassVar[tuple[str, ...]] = ("render", "bos")

    render: Render = "transcript"
    bos: bool = False

    def as_json(self) -> dict[str, Any]:
        """JSON values by field; one at its default is left out, so that it moves no key."""
        values: dict[str, Any] = {}
        if self.render != "transcript":
            values["render"] = self.render
        if self.bos:
            values["bos"] = True
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``as_json``; ``values`` may hold other fields too."""
        return cls(**{name: values[name] for name in cls.FIELDS if name in values})


TRANSCRIPT = Rendering()


def check_rendering(tokenizer: PreTrainedTokenizerFast, rendering: Rendering, name: str) -> None:
    """Refuses a tokenizer without what the rendering needs of it.

    Raises:
        InputError: there is no chat template, or no BOS token; ``name`` stands for the tokenizer.
    """
    if rendering.bos and tokenizer.bos_token_id is None:
        raise InputError(
            f"training.bos: tokenizer {name} has no BOS token, expected one, or bos: false",
            ("training", "bos"),
        )
    if rendering.render == "chat_template":
        try:
            tokenizer.get_chat_template()
        except ValueError as error:
            raise InputError(
                f"training.render: tokenizer {name} has no chat template (expected chat_template "
                "in its tokenizer_config.json, or chat_template.jinja beside it), or render: "
                "transcript",
                ("training", "render"),
            ) from error


def check_chats(rows: pa.Table, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Tries the chat template on rows, in another process (``foreign.templates``).

    Args:
        name: of the template, at the start of the message.

    Raises:
        InputError: it takes too long, or makes too long a text.
    """
    variables = {
        "tools": None,
        "documents": None,
        "add_generation_prompt": False,
        **tokenizer.special_tokens_map,
    }
    conversations = [of for row in rows["messages"].to_pylist() for of in row]
    check_template(template_of(tokenizer), variables, conversations, name)


def template_of(tokenizer: PreTrainedTokenizerFast) -> str:
    """The tokenizer's chat template, in which today's date is a fixed one.

    Raises:
        ValueError: there is none.
    """
    template: str = tokenizer.get_chat_template()
    return _FIXED_DATE + template if "strftime_now" in template else template


def chats(rows: pa.Table, tokenizer: PreTrainedTokenizerFast) -> list[list[str]]:
    """The m texts of every row, each a whole conversation rendered by the chat template.

    Raises:
        RowError: the template refuses a row.
        ValueError: the rows have no messages, or the tokenizer has no template.
    """
    if "messages" not in rows.column_names:
        raise ValueError("the rows were prepared without messages, which a chat template needs")
    template = template_of(tokenizer)
    texts: list[list[str]] = []
    for row_id, conversations in zip(
        rows["row_id"].to_pylist(), rows["messages"].to_pylist(), strict=True
    ):
        try:
            texts.append([_chat(tokenizer, template, messages) for messages in conversations])
        except Exception as error:  # whatever the template's code raises
            reason = f"the chat template refuses it: {first_line(error)}"
            raise RowError(row_id, reason) from error
    return texts


def first_line(error: Exception) -> str:
    """The first line of an error's message; its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _chat(tokenizer: PreTrainedTokenizerFast, template: str, messages: list[Any]) -> str:
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    assert isinstance(text, str)
    return text
