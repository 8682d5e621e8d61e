"""No tokenizer alters a text because it is read in pieces: every row spells prompt + answer."""

import re
import unicodedata
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.testing.tokenizer_kinds import byte_level, lossless, lossy, sentencepiece_bpe
from w2s_ray.data.joining import joins_exactly, loaded_joins_exactly
from w2s_ray.data.tokens import Tokens, encode
from w2s_ray.models.tokenizer import bytes_tokenizer

parts = st.lists(
    st.sampled_from(
        ["The", "box", " ", "  ", "\n", "\n\nAssistant:", " Yes", "No", "é", "e\u0301", "日本",
         "<mask>", "?", "…", "İ", "\u0301", "ﬁ", "12", "\t", "\u00a0"]
    )
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=3),
    max_size=6,
).map("".join)  # fmt: skip


def rows(prompt: str, answers: list[str]) -> pa.Table:
    return pa.table(
        {
            "row_id": ["row"],
            "prompt": pa.array([prompt], pa.string()),
            "answers": pa.array([answers], pa.list_(pa.string())),
        }
    )


def texts(tokens: Tokens) -> list[list[int]]:
    """The ids of each text of the first row."""
    head, *tails = np.split(tokens.ids, np.cumsum(tokens.segments[0]))[:-1]
    return [[*head.tolist(), *tail.tolist()] for tail in tails]


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def spelled(tokenizer: PreTrainedTokenizerFast, of_text: list[int]) -> str:
    return normal(tokenizer.decode(of_text, clean_up_tokenization_spaces=False))


def normal(text: str) -> str:
    """In one Unicode form, and without the blanks that the token ``<mask>`` takes by itself."""
    return re.sub(r"\s*<mask>\s*", "<mask>", unicodedata.normalize("NFC", text))


@pytest.mark.parametrize("name", lossless())
@given(prompt=parts, answers=st.tuples(parts, parts))
@example("Which one?", ("No", " Yes"))
@example("a ", ("<mask> b", "\u0301x"))
def test_the_tokens_of_prompt_and_answer_spell_the_text(
    name: str, prompt: str, answers: tuple[str, str]
) -> None:
    tokenizer = lossless()[name]
    if not all(ids(tokenizer, answer) for answer in answers):
        return
    tokens = encode(rows(prompt, list(answers)), tokenizer, 10_000)
    for answer, of_text in zip(answers, texts(tokens), strict=True):
        assert spelled(tokenizer, of_text) == normal(prompt + answer)


@pytest.mark.parametrize("name", lossy())
@given(prompt=parts, answers=st.tuples(parts, parts))
@example("Which one?", ("No", " Yes"))
@example("The bo", ("x", "x!"))
@example("The box", ("The", "The box"))
def test_a_tokenizer_that_adds_or_drops_something_reads_the_whole_text(
    name: str, prompt: str, answers: tuple[str, str]
) -> None:
    tokenizer = lossy()[name]
    whole = [ids(tokenizer, prompt + answer) for answer in answers]
    if not all(whole):
        return
    tokens = encode(rows(prompt, list(answers)), tokenizer, 10_000)
    assert texts(tokens) == whole
    assert (tokens.segments[0, 1:] > 0).all()
    shared, (a, b) = tokens.segments[0, 0], whole
    assert a[:shared] == b[:shared]
    assert a[shared] != b[shared] or shared == min(len(a), len(b)) - 1  # no more could be shared


def test_in_pieces_they_would_spell_something_else() -> None:
    """What the property above is about: the fault that it would see."""
    tokenizer = sentencepiece_bpe("prepend")
    pieces = ids(tokenizer, "Which one?") + ids(tokenizer, "No")
    assert spelled(tokenizer, pieces) == "Which one? No"
    tokens = encode(rows("Which one?", ["No", "Yes"]), tokenizer, 100)
    assert spelled(tokenizer, texts(tokens)[0]) == "Which one?No"


@pytest.mark.parametrize("name", lossless())
def test_lossless_ones_are_read_in_pieces_as_before(name: str) -> None:
    tokenizer = lossless()[name]
    tokens = encode(rows("The box", [" is here", "<mask>"]), tokenizer, 100)
    pieces = [ids(tokenizer, text) for text in ("The box", " is here", "<mask>")]
    assert tokens.segments.tolist() == [[len(piece) for piece in pieces]]
    assert tokens.ids.tolist() == list(chain(*pieces))


@pytest.mark.parametrize("name", [*lossless(), *lossy()])
def test_a_saved_tokenizer_is_read_as_before(name: str, tmp_path: Path) -> None:
    tokenizer = {**lossless(), **lossy()}[name]
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded_joins_exactly(loaded) == loaded_joins_exactly(tokenizer) == (name in lossless())


def test_the_tokenizer_of_bytes_joins_exactly() -> None:
    assert loaded_joins_exactly(bytes_tokenizer())


def test_a_tokenizer_with_a_part_in_python_is_read_whole() -> None:
    class Custom:
        def pre_tokenize(self, pretok: object) -> None:
            """Leaves the text as it is."""

    tokenizer = byte_level()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Custom())
    assert not loaded_joins_exactly(tokenizer)


def test_only_what_is_known_to_keep_every_character_is_read_in_pieces() -> None:
    bpe, bytes_ = {"type": "BPE"}, {"type": "ByteLevel", "add_prefix_space": False}
    assert joins_exactly(None, bytes_, bpe)
    assert joins_exactly(None, bytes_, {"merges": []})  # files of older versions name no type
    assert not joins_exactly({"type": "Unheard"}, bytes_, bpe)
    assert not joins_exactly(None, {"type": "Unheard"}, bpe)
    assert not joins_exactly(None, bytes_, {"type": "WordPiece"})
    assert not joins_exactly(None, {"type": "Split", "behavior": "Removed"}, bpe)
    nested = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Sequence", "pretokenizers": [bytes_]}],
    }
    assert joins_exactly(None, nested, bpe)


def test_a_sequence_of_normalisers_is_as_good_as_its_worst() -> None:
    good = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    assert loaded_joins_exactly(byte_level(good))
    bad = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    assert not loaded_joins_exactly(byte_level(bad))
