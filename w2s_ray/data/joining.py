"""Whether a tokenizer may read a text in pieces, decided from its parts and never by trial.

Prompt and answers are tokenised separately where that cannot alter the text, so that the answers of
a row share the tokens of their prompt. It can alter it: a SentencePiece tokenizer may put a space
before every text it is given, a word tokenizer drops the spaces between words, and with both the
tokens of ``prompt`` and ``answer`` say something else than those of ``prompt + answer``. Only what
is listed here is known to keep every character where it is; with anything else, ``tokens`` reads
whole texts.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Part = Mapping[str, Any]

_CHARACTER_NORMALIZERS = frozenset(
    {"NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "ByteLevel"}
)
_SPLITTERS = frozenset({"Digits", "UnicodeScripts", "FixedLength"})


def joins_exactly(normalizer: Part | None, pre_tokenizer: Part | None, model: Part) -> bool:
    """Whether the tokens of two texts, one after the other, always spell the joined text.

    Each of the two is normalised by itself: a combining mark at the start of the second is not
    composed with the letter before it, which changes no character that a reader sees.

    Args:
        normalizer, pre_tokenizer, model: as in a ``tokenizer.json``; of ``model`` no vocabulary is
            needed.
    """
    return (
        all(map(_is_by_character, _parts(normalizer, "normalizers")))
        and all(map(_keeps_all, _parts(pre_tokenizer, "pretokenizers")))
        and _has_no_word_marks(model)
    )


def loaded_joins_exactly(tokenizer: Any) -> bool:
    """``joins_exactly`` for a loaded fast tokenizer of transformers."""
    backend = tokenizer.backend_tokenizer
    model = backend.model
    words = ("continuing_subword_prefix", "end_of_word_suffix")
    parts = {name: getattr(model, name, None) for name in words}
    return joins_exactly(
        _state(backend.normalizer),
        _state(backend.pre_tokenizer),
        {"type": type(model).__name__, **parts},
    )


def _parts(part: Part | None, name: str) -> Iterator[Part]:
    """A normaliser or pre-tokenizer without nesting, in order."""
    if part is None:
        return
    if part.get("type") != "Sequence":
        yield part
        return
    for inner in part.get(name, ()):
        yield from _parts(inner, name)


def _is_by_character(normalizer: Part) -> bool:
    """Whether it handles each character by itself, and adds or strips nothing at the ends."""
    if normalizer.get("type") == "Replace":
        pattern = normalizer.get("pattern")
        return isinstance(pattern, dict) and len(pattern.get("String", "")) == 1
    return normalizer.get("type") in _CHARACTER_NORMALIZERS


def _keeps_all(pre_tokenizer: Part) -> bool:
    """Whether it only divides the text: it neither adds a space nor drops one."""
    kind = pre_tokenizer.get("type")
    if kind == "ByteLevel":
        return pre_tokenizer.get("add_prefix_space") is False
    if kind == "Metaspace":
        return pre_tokenizer.get("prepend_scheme") == "never"
    if kind in ("Split", "Punctuation"):
        return pre_tokenizer.get("behavior") != "Removed"
    return kind in _SPLITTERS


def _has_no_word_marks(model: Part) -> bool:
    """Whether its tokens are spelled alike at the start of a word and inside of it."""
    kind = model.get("type") or ("BPE" if "merges" in model else None)
    marks = (model.get("continuing_subword_prefix"), model.get("end_of_word_suffix"))
    return kind in ("BPE", "Unigram") and not any(marks)


def _state(part: Any) -> Part | None:
    """The JSON form of a part of a loaded tokenizer."""
    if part is None:
        return None
    getstate: Callable[[], bytes] = part.__getstate__
    try:
        state = json.loads(getstate())
    except Exception:  # a part written in Python has no JSON form
        return {"type": "Custom"}
    return state if isinstance(state, dict) else {"type": "Custom"}
