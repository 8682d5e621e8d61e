"""Small tokenizers of every sort, built with the ``tokenizers`` library, no download.

Each is named for what it does to a text. ``LOSSLESS`` ones spell every text exactly; ``LOSSY`` ones
change case, or drop or add blanks, so that "the text" is what they make of the whole of it.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Which box is the blue one? The left one, box 7.",
    "The harbour was quiet; nobody spoke of it again. Again and again they came to the harbour.",
    "Émile a mangé une crêpe à la gare, naïve comme toujours.",
    "She asked: why not? Because 12 of 30 were wrong, said the other one.",
    "日本語の文章です。文章はここで終わります。",
] * 4
SPACE = "▁"


def wrapped(tokenizer: Tokenizer, **settings: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **settings)


def byte_level(
    normalizer: Any = None, add_prefix_space: bool = False, mask: bool = False
) -> PreTrainedTokenizerFast:
    """As GPT-2; with a normaliser as GPT-NeoX and Qwen2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if mask:
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True)])
    return wrapped(tokenizer)


def llama3() -> PreTrainedTokenizerFast:
    """As Llama 3: a regular expression splits, then bytes."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+|\s+|."), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def sentencepiece_bpe(prefix: str) -> PreTrainedTokenizerFast:
    """As Llama 2 and Mistral (prefix "prepend" or "first"), or Gemma ("never")."""
    characters = sorted({*"".join(CORPUS), SPACE} - {" "})
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = [f"{SPACE}T", f"{SPACE}b", f"{SPACE}{SPACE}", "he", f"{SPACE}The", "ox", f"{SPACE}box"]
    pairs = [
        (SPACE, "T"), (SPACE, "b"), (SPACE, SPACE), ("h", "e"), (f"{SPACE}T", "he"), ("o", "x"),
        (f"{SPACE}b", "ox"),
    ]  # fmt: skip
    vocabulary = {t: i for i, t in enumerate(["<pad>", "<unk>", *bytes_, *characters, *words])}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix == "prepend":
        parts = [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        tokenizer.normalizer = normalizers.Sequence(parts)
    elif prefix == "never":
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_previous")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    if prefix != "never":
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    return wrapped(tokenizer, unk_token="<unk>")


def unigram(prefix: str, normalizer: Any = None) -> PreTrainedTokenizerFast:
    """As T5, XLNet or DeBERTa: a unigram model on words that begin with a blank."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer or normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prefix)
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<pad>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return wrapped(tokenizer, unk_token="<unk>")


def wordpiece() -> PreTrainedTokenizerFast:
    """As BERT: lower case, no accents, words and their continuations."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["<pad>", "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return wrapped(tokenizer, unk_token="<unk>")


def words() -> PreTrainedTokenizerFast:
    """One token a word, without the blanks between them."""
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "The": 2, "box": 3}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return wrapped(tokenizer, unk_token="<unk>")


def old_gpt() -> PreTrainedTokenizerFast:
    """As the first GPT: the end of a word is part of its last token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder("</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<unk>"], end_of_word_suffix="</w>",
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS, trainer)
    return wrapped(tokenizer, unk_token="<unk>")


@cache
def lossless() -> Mapping[str, PreTrainedTokenizerFast]:
    """Tokenizers whose tokens spell every text up to its Unicode normal form."""
    return {
        "bytes": byte_level(),
        "bytes after NFC": byte_level(normalizers.NFC()),
        "bytes, a token that takes blanks": byte_level(mask=True),
        "bytes after a split": llama3(),
        "SentencePiece without a prefix": sentencepiece_bpe("never"),
    }


@cache
def lossy() -> Mapping[str, PreTrainedTokenizerFast]:
    """Tokenizers that add a blank, or change or drop something."""
    stripped = normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()])
    return {
        "bytes with a prefix": byte_level(add_prefix_space=True),
        "a normaliser that prepends": sentencepiece_bpe("prepend"),
        "a prefix before the first word": sentencepiece_bpe("first"),
        "a prefix before every part": sentencepiece_bpe("always"),
        "unigrams, a prefix": unigram("always"),
        "unigrams, a prefix, ends stripped": unigram("first", stripped),
        "blanks collapsed": unigram("first", normalizers.Replace(Regex(" {2,}"), " ")),
        "lower case words and their continuations": wordpiece(),
        "words": words(),
        "words with an end": old_gpt(),
    }
