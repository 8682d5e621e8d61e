"""Tokens: one prompt for both answers, lengths that no token id can change, cuts on the left."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from w2s_ray.data.tokens import encode

WORDS = ["!", *"abcdefgh"]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; "!" is token 0, as in the vocabularies of GPT-2 and Qwen."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "h"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="!")


TOKENIZER = word_tokenizer()


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


texts = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
answers = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
pairs = st.lists(st.tuples(texts, st.lists(answers, min_size=2, max_size=2)), min_size=1)


@given(pairs, st.integers(1, 20))
def test_every_text_is_the_end_of_prompt_and_answer_and_the_prompt_is_shared(rows, limit):
    tokens = encode(table(rows), TOKENIZER, limit)
    cut, line = 0, list[int]()
    for i, (prompt, of_row) in enumerate(rows):
        head, tails = spelled(prompt), [spelled(answer) for answer in of_row]
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
    with_zero = encode(table([("! a !", ["! ! b !", "! !"])]), TOKENIZER, 512)
    without = encode(table([("c a c", ["c c b c", "c c"])]), TOKENIZER, 512)
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
    tokens = encode(table([("a", ["b c", "d"])]), tokenizer, 512)
    assert tokens.ids.tolist() == [1, 2, 3, 4]


def test_no_rows_are_no_tokens():
    rows = table([("a", ["b"])]).slice(0, 0)
    tokens = encode(rows, TOKENIZER, 512)
    assert tokens.segments.shape == (0, 2) and len(tokens.ids) == 0


def test_a_text_without_tokens_names_its_row():
    with pytest.raises(ValueError, match="row1"):
        encode(table([("a", ["b", "c"]), ("", ["b", " "])]), TOKENIZER, 512)


def test_an_empty_answer_stands_if_its_prompt_has_tokens():
    tokens = encode(table([("a b", ["", "c"])]), TOKENIZER, 512)
    assert tokens.segments.tolist() == [[2, 0, 1]]
    assert tokens.text_lengths.tolist() == [[2, 3]]
    with pytest.raises(ValueError, match="row0"):  # the other answer leaves no room for the prompt
        encode(table([("a b", ["", "c d e"])]), TOKENIZER, 3)


def test_the_order_of_rows_is_that_of_the_table():
    rows = [("a b", ["c", "d e"]), ("", ["f", "g"]), ("a b", ["h", "a"])]
    forward, backward = (encode(table(r), TOKENIZER, 512) for r in (rows, rows[::-1]))
    assert forward.row_ids == ["row0", "row1", "row2"]
    assert forward.segments.tolist() == backward.segments.tolist()[::-1]
