"""What the answers of a row cannot change: its context, as keys that rows of one group share.

Rows with a key in common are kept in one split (``groups``). The context is

* the prompt where the file gives one, with white space, invisible characters and Unicode's
  compatible forms made alike (``alike``);
* of a conversation or transcript, in any dialect of text (``first_turns``), what the user says
  first, so that all turns and branches of one conversation are together. What the system says is
  no part of it. Where the prompt ends before the user has said anything, what the user says in each
  of the two answers;
* of two plain texts without a prompt a guess. Their common beginning is the prompt and what both
  answers happen to begin with, so only its first sentence is used (or what comes before a mark such
  as ``Answer:``); a beginning without a complete sentence is compared by its first words;
* otherwise, where nothing precedes the answers, the texts themselves.

A guess can separate one prompt (a question of several words without a mark at its end, before long
openings), so the rows it was made for are counted and reported. Upper and lower case differ.
"""

import json
import re
from hashlib import blake2b
from typing import NamedTuple

from w2s_ray.data.first_turns import FirstTurn, first_turn, visible
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
    r"[ \t]*(?:\*\*)?[:\uff1a]"
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
        is_guess: whether the file does not say where the prompt, or its first turn, begins or ends.
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
    """The text as a reader sees it: ``visible``, with each run of white space as one space."""
    text = visible(text)
    same = " ".join(text.split())
    return text if same == text else same


def of_group(value: object) -> Context:
    """The context of a row whose group the file gives."""
    name = digest("group", str(value))
    return Context((f"group {name}",), name)


def of_text(text: str) -> Context:
    """The context of a text to classify: all of it, or of a transcript the user's first turn."""
    turn = first_turn(text)
    return Context((_prompt_key(turn.text if turn else alike(text)),), digest(text))


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
        return _of_transcripts(pair, is_whole=bool(prompt_given))
    if prompt_given is not None and prompt:
        turn = first_turn(pair.prompt, may_follow_text=True)
        if turn is not None:
            return _of_turn(turn, pair)
        return Context((_prompt_key(prompt),), digest(pair.prompt), prompt, may_continue=True)
    guess = _guess(pair, is_declared_empty=prompt_given is not None)
    texts = _text_keys(pair)
    if guess is None:
        return Context(texts, _name_of_texts(pair))
    return guess._replace(keys=(*guess.keys, *texts))


def _name_of_texts(pair: Pair) -> str:
    return digest(*sorted((pair.chosen, pair.rejected)))


def _prompt_key(text: str) -> str:
    return f"prompt {digest(text)}"


def _text_keys(pair: Pair) -> tuple[str, ...]:
    return tuple(f"text {digest(alike(pair.prompt + answer))}" for answer in pair[1:])


def _of_transcripts(pair: Pair, *, is_whole: bool) -> Context:
    """The context of two texts that both begin with a mark of HH-RLHF.

    Args:
        pair: its texts as they were read.
        is_whole: whether the prompt's last turn is complete without another one after it.
    """
    turn = first_turn(pair.prompt, is_whole=is_whole)
    if turn is not None:
        return _of_turn(turn, pair)
    turns = [first_turn(pair.prompt + answer) for answer in pair[1:]]
    questions = {turn.text for turn in turns if turn is not None}
    if questions:
        return Context(tuple(sorted(map(_prompt_key, questions))), _name_of_texts(pair))
    prompt = alike(pair.prompt)
    if _SPEAKER.sub("", prompt).strip():
        return Context((_prompt_key(prompt),), digest(pair.prompt))
    return Context(_text_keys(pair), _name_of_texts(pair))


def _of_turn(turn: FirstTurn, pair: Pair) -> Context:
    """The context of a pair whose prompt marks what the user says first.

    A plain prompt may continue it. It continues another one itself only where it has no mark: turns
    that are marked can be seen to end.
    """
    return Context(
        (_prompt_key(turn.text),),
        digest(pair.prompt),
        turn.text if turn.is_plain else None,
        may_continue=turn.has_no_mark,
        is_guess=turn.is_guess,
    )


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
    before = chosen[: answer.start()] if answer else ""
    before = before if before.strip() else _first_sentence(chosen, rejected, same)
    turn = first_turn(chosen[:same], is_whole=False, may_follow_text=True) or first_turn(before)
    sentence = turn.text if turn else alike(before)
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
