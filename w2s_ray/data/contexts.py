"""What the answers of a row cannot change: its context, as keys that rows of one group share.

Rows with a key in common are kept in one split (``groups``). The context is

* the prompt where the file gives one, with white space and Unicode composition made alike;
* of a conversation or transcript the beginning up to and including the first thing that the user
  says, so that all turns and branches of one conversation are together. Where the prompt ends
  before the user has said anything, what the user says in each of the two answers;
* of two plain texts without a prompt a guess. Their common beginning is the prompt and what both
  answers happen to begin with, so only its first sentence is used (or what comes before a mark such
  as ``Answer:``); a beginning without a complete sentence is compared by its first words;
* otherwise, where nothing precedes the answers, the texts themselves.

A guess can separate one prompt (a question of several words without a mark at its end, before long
openings), so the rows it was made for are counted and reported. Upper and lower case differ.
"""

import json
import re
import unicodedata
from hashlib import blake2b
from typing import NamedTuple

from w2s_ray.data.preference import Pair

MIN_WORDS = 3
"""So many words at least, and half of the longer one, must two beginnings share to be one."""
MAX_WORDS = 100
"""So many words of a beginning are compared at most."""

_SPEAKER = re.compile(r"(?:^| )(System|Human|Assistant|Tool):")
_SENTENCE = re.compile(
    r"\s*\S.*?(?:[.?!…][\"'”’)\]]*(?=\s|\Z)|[。？！]|[^\s:](?=\s*\n))", re.DOTALL
)
_ANSWER = re.compile(
    r"(?:^|\n)[ \t]*(?:#+[ \t]*|\*\*)?"
    r"(?:Assistant|Answer|A|Response|Output|Completion|Reply|Bot|AI|GPT|Model|Summary|TL;?DR)"
    r"[ \t]*(?:\*\*)?:"
    r"|\[/INST\]|<\|im_start\|>\s*assistant|<\|assistant\|>|<start_of_turn>\s*model"
    r"|<\|start_header_id\|>\s*assistant",
    re.IGNORECASE,
)
"""What stands before the answer in the common templates of texts."""
_WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")
"""Letters of scripts that put no spaces between words."""


class Context(NamedTuple):
    """What the answers of one row cannot change.

    Attributes:
        keys: rows that have one of them in common are of one group.
        name: a hash that does not depend on other rows; of a group, the lowest names it.
        prompt: a plain prompt, made alike, that other prompts may continue.
        may_continue: whether it may itself continue another one.
        is_guess: whether the file does not say where the prompt ends.
    """

    keys: tuple[str, ...]
    name: str
    prompt: str | None = None
    may_continue: bool = False
    is_guess: bool = False


def digest(*texts: str) -> str:
    """A hash of texts, 16 hex digits."""
    return blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()


def alike(text: str) -> str:
    """The text in Unicode's composed form, with each run of white space as one space."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    same = " ".join(text.split())
    return text if same == text else same


def of_group(value: object) -> Context:
    """The context of a row whose group the file gives."""
    name = digest("group", str(value))
    return Context((f"group {name}",), name)


def of_text(text: str) -> Context:
    """The context of a text to classify: all of it, or of a transcript the user's first turn."""
    same = alike(text)
    return Context((_prompt_key(_first_turn(same) or same),), digest(text))


def of_generated(pair: Pair) -> Context:
    """The context of a generated pair: its prompt, or its two sentences."""
    name = digest(pair.prompt) if pair.prompt else digest(*sorted(pair[1:]))
    return Context((name,), name)


def of_pair(pair: Pair, prompt_given: str | None) -> Context:
    """The context of a preference pair.

    Args:
        pair: its texts as they were read.
        prompt_given: the prompt column where its value is a text; None if there is none.
    """
    chosen, rejected = alike(pair.prompt + pair.chosen), alike(pair.prompt + pair.rejected)
    prompt = alike(pair.prompt)
    if _SPEAKER.match(chosen) and _SPEAKER.match(rejected):
        question = _first_turn(prompt, is_whole=bool(prompt_given))
        if question is not None:
            return Context((_prompt_key(question),), digest(pair.prompt), _plain(question))
        questions = {_first_turn(chosen), _first_turn(rejected)} - {None}
        if questions:
            keys = tuple(sorted(_prompt_key(question) for question in questions if question))
            return Context(keys, _name_of_texts(pair))
        if _SPEAKER.sub("", prompt).strip():
            return Context((_prompt_key(prompt),), digest(pair.prompt))
        return Context(_text_keys(chosen, rejected), _name_of_texts(pair))
    if prompt_given is not None and prompt:
        return Context((_prompt_key(prompt),), digest(pair.prompt), prompt, may_continue=True)
    guess = _guess(pair, is_declared_empty=prompt_given is not None)
    texts = _text_keys(chosen, rejected)
    if guess is None:
        return Context(texts, _name_of_texts(pair))
    return guess._replace(keys=(*guess.keys, *texts))


def _name_of_texts(pair: Pair) -> str:
    return digest(*sorted((pair.chosen, pair.rejected)))


def _prompt_key(text: str) -> str:
    return f"prompt {digest(text)}"


def _text_keys(*texts: str) -> tuple[str, ...]:
    return tuple(f"text {digest(text)}" for text in texts)


def _first_turn(transcript: str, *, is_whole: bool = True) -> str | None:
    """A transcript to the end of the user's first turn that is not blank; None if there is none.

    A question by itself has no mark of its speaker: it is the same as a plain prompt.

    Args:
        transcript: made alike.
        is_whole: whether the last turn is complete without another one after it.
    """
    marks = list(_SPEAKER.finditer(transcript))
    if not marks or marks[0].start() != 0:
        return None
    ends = [mark.start() for mark in marks[1:]] + ([len(transcript)] if is_whole else [])
    for mark, end in zip(marks, ends, strict=False):
        said = transcript[mark.end() : end].strip()
        if mark[1] == "Human" and said:
            return said if mark is marks[0] else transcript[:end]
    return None


def _plain(question: str) -> str | None:
    """A question without the mark of a speaker, which a plain prompt may continue; or None."""
    return None if _SPEAKER.match(question) else question


def _guess(pair: Pair, *, is_declared_empty: bool) -> Context | None:
    """The context of two plain texts by their common beginning; None if that says nothing.

    Args:
        is_declared_empty: the file has a prompt, which is empty: only a complete sentence at the
            beginning of both is then taken for one.
    """
    chosen, rejected = pair.prompt + pair.chosen, pair.prompt + pair.rejected
    name = digest(pair.prompt) if pair.prompt else _name_of_texts(pair)
    same = len(_common(chosen, rejected))
    answer = _ANSWER.search(chosen, 0, same)
    before = alike(chosen[: answer.start()]) if answer else ""
    sentence = before or alike(_first_sentence(chosen, rejected, same))
    if sentence:
        return Context((_prompt_key(sentence),), name, sentence, is_guess=True)
    if is_declared_empty:
        return None
    words, space = alike(pair.prompt).split(), " "
    if not words and _WITHOUT_SPACES.search(chosen, 0, same):
        words, space = list(alike(chosen[:same])), ""
    if not words:
        return None
    words = words[:MAX_WORDS]
    least = max(MIN_WORDS, (len(words) + 1) // 2)
    counts = [*range(least, len(words)), len(words)]
    keys = [_prompt_key(space.join(words[:count])) for count in counts]
    return Context(tuple(keys), name, is_guess=True)


def _first_sentence(chosen: str, rejected: str, same: int) -> str:
    """The first complete sentence or line with which both texts begin; empty if there is none."""
    sentences = [_SENTENCE.match(text) for text in (chosen, rejected)]
    ends = [sentence.end() if sentence else same + 1 for sentence in sentences]
    return chosen[: min(ends)] if max(ends) <= same else ""


def _common(first: str, second: str) -> str:
    """The longest common beginning, by bisection: comparing slices is fast."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return first[:low]
