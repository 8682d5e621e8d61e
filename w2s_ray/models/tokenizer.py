"""Tokenizers of models, and one of bytes that needs no download.

Every tokenizer has a pad token, because padded batches are rectangles. No code may search texts for
it, since its id may be that of a real token: the last token of a text follows from lengths.
"""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from w2s_ray.catalog.configs import BYTES_VOCABULARY
from w2s_ray.catalog.digests import hub_id, local_path
from w2s_ray.errors import InputError
from w2s_ray.models.folders import named_config, tokenizer_folder
from w2s_ray.models.gguf import gguf_tokenizer, is_unpacked
from w2s_ray.spec.schema import ModelSpec

PAD = "<pad>"


def load_tokenizer(model: ModelSpec) -> PreTrainedTokenizerFast:
    """The model's tokenizer; ``pad_token_id`` is set.

    Raises:
        InputError: the tokenizer cannot be read, or the Hub cannot be reached.
    """
    if model.source is not None:
        return _from_source(model.source, model.revision)
    return bytes_tokenizer() if model.tokenizer == "bytes" else _from_source(model.tokenizer, None)


def tokenizer_to_check(model: ModelSpec) -> PreTrainedTokenizerFast:
    """As ``load_tokenizer``, but a GGUF file is not unpacked for it, which takes long.

    Raises:
        InputError: it cannot be read.
    """
    source = model.source or model.tokenizer
    path = None if source == "bytes" or hub_id(source) else local_path(source)
    if path is not None and path.is_file() and not is_unpacked(path):
        return gguf_tokenizer(path)  # type: ignore[no-any-return]
    return load_tokenizer(model)


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """The UTF-8 bytes of a text, ids 0–255; the last id pads and never comes from a text."""
    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab={**vocabulary, PAD: BYTES_VOCABULARY - 1}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PAD, split_special_tokens=True
    )


def _from_source(source: str, revision: str | None) -> PreTrainedTokenizerFast:
    try:
        with tokenizer_folder(source, revision) as folder:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, config=named_config(folder, source), trust_remote_code=False
            )
    except InputError:
        raise
    except Exception as error:  # tokenizers raises plain exceptions
        raise InputError(f"tokenizer {source}: cannot be loaded: {first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"tokenizer {source}: expected a tokenizer with a tokenizer.json")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = (
            tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
        )
    return tokenizer


def first_line(error: Exception) -> str:
    """The first line of a library's error message, with what its colon announces.

    The library's advice follows in other lines.
    """
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _byte_characters() -> list[str]:
    """The character that byte-level models write for each byte, by byte (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(256 + position) for position, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]
