"""The byte tokenizer is exact, and every tokenizer can pad."""

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.testing.tiny_models import tiny_spec
from w2s_ray.models.tokenizer import bytes_tokenizer, load_tokenizer
from w2s_ray.spec.schema import ModelSpec

BYTES = bytes_tokenizer()


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("<pad>")
@example(" <pad>\r\n\t\x00 naïve 文字 \U0001f600")
def test_bytes_are_the_ids(text: str) -> None:
    ids = BYTES(text, add_special_tokens=False)["input_ids"]
    assert ids == list(text.encode())
    assert BYTES.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_byte_tokenizer_survives_a_folder(tmp_path: Path) -> None:
    BYTES.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert len(again) == 257
    text = "a <pad> b"
    assert again(text, add_special_tokens=False)["input_ids"] == list(text.encode())


def test_a_tokenizer_without_a_pad_token_gets_one(tmp_path: Path) -> None:
    assert load_tokenizer(tiny_spec("llama")).pad_token_id == 256
    for eos in (None, "!"):
        folder = tmp_path / str(eos)
        plain = bytes_tokenizer()
        plain.pad_token = None
        plain.eos_token = eos
        plain.save_pretrained(folder)
        spec = tiny_spec("llama", tokenizer=str(folder))
        assert load_tokenizer(spec).pad_token_id == (0 if eos is None else ord("!"))
        assert isinstance(spec, ModelSpec)
