"""Tokens: one prompt for both answers, lengths that no token id can change, cuts on the left."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from w2s_ray.data.rendering import Rendering, RowError
from w2s_ray.data.tokens import encode
from w2s_ray.models.tokenizer import bytes_tokenizer

WORDS = ["!", *"abcdefgh"]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; "!" is token 0, as in the vocabularies of GPT-2 and Qwen."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "h"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="!")


TOKENIZER = word_tokenizer()
BYTES = bytes_tokenizer()


def table(rows: list[tuple[str, list[str]]]) -> pa.Table:
    prompts, answers = zip(*rows, strict=True)
    return pa.table(
        {
            "row_id": [f"row{i}" for i in range(len(rows))],
            "prompt": pa.array(prompts, pa.string()),
            "answers": pa.array(answers, pa.list_(pa.string())),
        }
    )


def spelled(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def split(prompt: str, of_row: list[str]) -> tuple[list[int], list[list[int]]]:
    """What the texts share at the beginning, but for their last tokens, and the rest of each."""
    whole = [spelled(prompt + answer) for answer in of_row]
    most = min(len(text) for text in whole) - 1
    shared = next((i for i in range(most) if whole[0][i] != whole[1][i]), most)
    return whole[0][:shared], [text[shared:] for text in whole]


texts = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
# Their blank is the boundary of prompt and answer, which this tokenizer drops.
answers = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(
    lambda words: f" {' '.join(words)}"
)
pairs = st.lists(st.tuples(texts, st.lists(answers, min_size=2, max_size=2)), min_size=1)


@given(pairs, st.integers(1, 20))
def test_every_text_is_the_end_of_prompt_and_answer_and_the_prompt_is_shared(rows, limit):
    tokens = encode(table(rows), TOKENIZER, limit)
    cut, line = 0, list[int]()
    for i, (prompt, of_row) in enumerate(rows):
        head, tails = split(prompt, of_row)
        kept = min(len(head), max(0, limit - max(map(len, tails))))
        parts = [head[len(head) - kept :], *(tail[-limit:] for tail in tails)]
        assert tokens.segments[i].tolist() == [len(part) for part in parts]
        assert tokens.text_lengths[i].tolist() == [kept + len(part) for part in parts[1:]]
        assert tokens.text_lengths[i].max() <= limit
        assert (tokens.starts[i], tokens.row_lengths[i]) == (len(line), sum(map(len, parts)))
        line += [token for part in parts for token in part]
        cut += kept < len(head) or any(len(tail) > limit for tail in tails)
    assert tokens.ids.tolist() == line
    assert tokens.truncated == cut
    assert tokens.ids.dtype == "int32" and tokens.segments.dtype == "int64"


def test_token_zero_counts_wherever_it_stands():
    with_zero = encode(table([("! a !", [" ! ! b !", " a !"])]), TOKENIZER, 512)
    without = encode(table([("c a c", [" c c b c", " a c"])]), TOKENIZER, 512)
    assert with_zero.segments.tolist() == without.segments.tolist() == [[3, 4, 2]]
    assert with_zero.text_lengths.tolist() == [[7, 5]]


def test_one_text_a_row_and_no_special_tokens():
    tokens = encode(table([("", ["a b c"]), ("", ["d"])]), TOKENIZER, 512)
    assert (tokens.per_row, tokens.ids.tolist()) == (1, [1, 2, 3, 4])
    assert tokens.segments.tolist() == [[0, 3], [0, 1]]


def test_a_tokenizer_that_begins_texts_with_a_token_of_its_own_does_not_here():
    tokenizer = word_tokenizer()
    processor = processors.TemplateProcessing(single="! $A", special_tokens=[("!", 0)])
    tokenizer.backend_tokenizer.post_processor = processor
    assert tokenizer("a")["input_ids"] == [0, 1]
    tokens = encode(table([("a", [" b c", " d"])]), tokenizer, 512)
    assert tokens.ids.tolist() == [1, 2, 3, 4]


def test_no_rows_are_no_tokens():
    rows = table([("a", ["b"])]).slice(0, 0)
    tokens = encode(rows, TOKENIZER, 512)
    assert tokens.segments.shape == (0, 2) and len(tokens.ids) == 0


def test_a_text_without_tokens_names_its_row():
    with pytest.raises(ValueError, match="row1"):
        encode(table([("a", ["b", "c"]), ("", ["b", " "])]), TOKENIZER, 512)


def test_an_empty_answer_stands_if_its_prompt_has_tokens():
    tokens = encode(table([("ab", ["", "c"])]), BYTES, 512)
    assert tokens.segments.tolist() == [[2, 0, 1]]
    assert tokens.text_lengths.tolist() == [[2, 3]]
    with pytest.raises(ValueError, match="row0"):  # the other answer leaves no room for the prompt
        encode(table([("ab", ["", "cde"])]), BYTES, 3)


def test_bos_begins_every_text_and_is_never_cut():
    tokenizer = word_tokenizer()
    tokenizer.bos_token = "h"
    rows = table([("a b c", [" d", " e f"]), ("", ["g", "d c b a"])])
    tokens = encode(rows, tokenizer, 4, Rendering(bos=True))
    assert tokens.segments.tolist() == [[2, 1, 2], [1, 1, 3]]
    bos, a, b, c, d, e, f, g = (WORDS.index(word) for word in "habcdefg")
    assert tokens.ids.tolist() == [bos, c, d, e, f, bos, g, c, b, a]
    assert tokens.truncated == 2 and tokens.text_lengths.max() == 4
    with pytest.raises(RowError, match="row0: a text without tokens"):
        encode(table([("", ["a", " "])]), tokenizer, 4, Rendering(bos=True))


def test_pairs_of_the_same_tokens_are_known_and_can_be_left_out():
    rows = [("a", [" b c d", " e c d"]), ("f", [" g", " g h"]), ("b", [" g", "  g"])]
    tokens = encode(table(rows), TOKENIZER, 2)
    assert tokens.identical.tolist() == [True, False, True]  # by truncation, and by the tokenizer
    assert encode(table(rows), TOKENIZER, 9).identical.tolist() == [False, False, True]
    rest = tokens.take(np.array([2, 1]))
    assert rest.row_ids == ["row2", "row1"]
    assert rest.segments.tolist() == tokens.segments[[2, 1]].tolist()
    assert rest.ids.tolist() == spelled("b g g") + spelled("g g h")
    assert tokens.take(np.array([], np.int64)).ids.dtype == "int32"
    one_text = encode(table([("", ["a"]), ("", ["a"])]), TOKENIZER, 2)
    assert not one_text.identical.any()


def test_the_order_of_rows_is_that_of_the_table():
    rows = [("a b", [" c", " d e"]), ("", ["f", "g"]), ("a b", [" h", " a"])]
    forward, backward = (encode(table(r), TOKENIZER, 512) for r in (rows, rows[::-1]))
    assert forward.row_ids == ["row0", "row1", "row2"]
    assert forward.segments.tolist() == backward.segments.tolist()[::-1]


characters = st.text(st.sampled_from("abc é"), max_size=9)
answers_of_bytes = st.lists(characters.filter(bool), min_size=2, max_size=2)


@given(st.lists(st.tuples(characters, answers_of_bytes), min_size=1), st.integers(1, 20))
def test_bytes_are_read_in_pieces(rows, limit):
    tokens = encode(table(rows), BYTES, limit)
    line = list[int]()
    for i, (prompt, of_row) in enumerate(rows):
        head, tails = list(prompt.encode()), [list(answer.encode()) for answer in of_row]
        kept = min(len(head), max(0, limit - max(map(len, tails))))
        parts = [head[len(head) - kept :], *(tail[-limit:] for tail in tails)]
        assert tokens.segments[i].tolist() == [len(part) for part in parts]
        line += [token for part in parts for token in part]
    assert tokens.ids.tolist() == line
