"""Preference pairs of the researcher's own, in any format that ``data`` reads, for ``align``.

None has a prompt that the study uses elsewhere, and what is not read is counted with its reason.
"""

from collections import Counter
from collections.abc import Set
from typing import NamedTuple

from w2s_ray.data.contexts import alike
from w2s_ray.data.first_turns import first_turn
from w2s_ray.data.prepare import origins_of
from w2s_ray.data.rows import Row
from w2s_ray.data.shortage import none_usable
from w2s_ray.data.transcripts import begins_as_transcript
from w2s_ray.errors import InputError
from w2s_ray.order import hashes, order
from w2s_ray.spec.inputs import DataSpec
from w2s_ray.spec.training import Render

NOT_TWO_TURNS = "not of one question and its answers (training.render: transcript takes any)"
NO_PROMPT = "without a word before the answers"
NO_ANSWER = "with an answer without a word"
USED_ELSEWHERE = "with a prompt of train, test or transfer"
REPEATED = "repeating an earlier pair"
CONTRADICTIONS = "prefers the answer that another pair rejects; kept"
PAIRS_VERSION = 1
"""Part of the identity of given pairs: increase it when they are read or chosen otherwise."""


class GivenPair(NamedTuple):
    """A prompt with two answers, the preferred one first."""

    row_id: str
    prompt_id: str
    prompt: str
    chosen: str
    rejected: str


class GivenPairs(NamedTuple):
    """What was read.

    Attributes:
        rows: of the files.
        left_out: rows that are in no pair, by reason.
        notes: rows with a peculiarity that a reader must know, by peculiarity.
    """

    pairs: list[GivenPair]
    rows: int
    left_out: Counter[str]
    notes: Counter[str]


def given_pairs(data: DataSpec, render: Render, elsewhere: Set[str]) -> GivenPairs:
    """The pairs of ``data`` with the lowest hashes, as many as it asks for.

    A pair has a prompt of another split if the two differ in white space alone, or if the pair is a
    transcript in which the user says it first.

    Args:
        data: of ``spec.given_pairs.GivenPairs.as_data``.
        render: with a chat template a pair is a question with two answers; with transcript it is
            three texts.
        elsewhere: prompts of the study's other splits, of which no pair may be.

    Raises:
        InputError: a row cannot be read, or too few are usable; names file and line.
    """
    origin = origins_of(data, {}, render == "chat_template")["ground_truth"]
    assert data.splits is not None and data.sizes.ground_truth is not None
    if not origin.rows:
        raise none_usable(data.splits.ground_truth, origin, data)
    left_out, found = Counter(origin.unusable), dict[tuple[str, ...], GivenPair]()
    used = {key for prompt in elsewhere for key in _asked(prompt)}
    for row in origin.rows:
        pair = _pair(row)
        if isinstance(pair, str):
            left_out[pair] += 1
        elif not used.isdisjoint(_asked(row.prompt) | _asked(pair.prompt)):
            left_out[USED_ELSEWHERE] += 1
        elif pair[2:] in found:
            left_out[REPEATED] += 1
        else:
            found[pair[2:]] = pair
    wanted, every = data.sizes.ground_truth, list(found.values())
    if len(every) < wanted:
        why = "".join(f", {count:,} {reason}" for reason, count in left_out.most_common())
        raise InputError(
            f"pairs.given.rows: given {wanted:,}, expected at most {len(every):,}: so many of "
            f"{origin.read:,} rows can be used{why}",
            ("pairs", "given", "rows"),
        )
    chosen = order([pair.row_id for pair in every], data.seed, "given")[:wanted]
    if unused := len(every) - wanted:
        left_out["usable but beyond pairs.given.rows"] += unused
    pairs = [every[n] for n in chosen]
    chosen_over = {(of.prompt, of.rejected, of.chosen) for of in pairs}
    if contradictions := sum(of[2:] in chosen_over for of in pairs):
        origin.notes[CONTRADICTIONS] += contradictions
    return GivenPairs(pairs, origin.read, left_out, origin.notes)


def _asked(prompt: str) -> set[str]:
    """A prompt as a reader sees it; of a transcript also what the user says first."""
    turn = first_turn(prompt) if begins_as_transcript(prompt) else None
    return {alike(prompt)} | ({turn.text} if turn else set())


def _pair(row: Row) -> GivenPair | str:
    """A row as a pair, or why it is none."""
    prompt, (chosen, rejected) = row.prompt, row.answers
    if row.messages is not None:
        ours, theirs = row.messages
        roles = [[turn["role"] for turn in turns] for turns in (ours, theirs)]
        if roles != [["user", "assistant"]] * 2 or ours[0] != theirs[0]:
            return NOT_TWO_TURNS
        prompt, chosen, rejected = ours[0]["content"], ours[1]["content"], theirs[1]["content"]
    if not prompt.strip():
        return NO_PROMPT
    if not (chosen.strip() and rejected.strip()):
        return NO_ANSWER
    (number,) = hashes([prompt], "prompt_id")
    return GivenPair(row.content, f"{int(number):016x}", prompt, chosen, rejected)
