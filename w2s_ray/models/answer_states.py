"""The states from which each token of an answer is predicted, of packed rows."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from w2s_ray.models import packed_attention
from w2s_ray.models.packed_layout import lay_out


class AnswerStates(NamedTuple):
    """The tokens of answers, and where they are predicted.

    Attributes:
        states: (L, H) of all tokens computed.
        before: (a,) index in ``states`` of the token before each.
        targets: (a,) the tokens.
        answer: (a,) index of the answer among the b·m of the batch, ascending.
    """

    states: Tensor
    before: Tensor
    targets: Tensor
    answer: Tensor


def packed_states(module: nn.Module, input_ids: Tensor, segments: Tensor) -> AnswerStates:
    """From one line, in which a row's answers share its prompt.

    The first token of a text has no token before it and is not counted.

    Args:
        module: a backbone with packed attention.
        input_ids: (T,) int64, row after row: prompt, answer 1, …, answer m.
        segments: (b, 1 + m) int64, number of tokens of each; T in all.
    """
    states = packed_attention.states_of_line(module, input_ids[None], lay_out(segments))[0]
    parts = segments.shape[1]
    flat = segments.flatten()
    begins = flat.cumsum(0) - flat
    part = torch.arange(len(flat), device=flat.device).repeat_interleave(flat)
    index = torch.arange(len(part), device=flat.device)
    row, place = part // parts, part % parts
    first = index == begins[part]
    after_prompt = begins[row * parts] + segments[row, 0] - 1
    before = torch.where(first, after_prompt, index - 1)
    counted = (place > 0) & ~(first & (segments[row, 0] == 0))
    answer = row * (parts - 1) + place - 1
    return AnswerStates(states, before[counted], input_ids[counted], answer[counted])


def separate_states(module: nn.Module, input_ids: Tensor, segments: Tensor) -> AnswerStates:
    """From a padded row of its own for each text; arguments as for ``packed_states``."""
    texts: list[Tensor] = []
    before: list[Tensor] = []
    targets: list[Tensor] = []
    answer: list[Tensor] = []
    length = int((segments[:, :1] + segments[:, 1:]).max())
    rows = torch.split(input_ids, segments.sum(dim=1).tolist())
    for row, sizes in zip(rows, segments.tolist(), strict=True):
        prompt, *answers = torch.split(row, sizes)
        for tail in answers:
            number, begin = len(texts), max(1, len(prompt))
            texts.append(torch.cat([prompt, tail]))
            own = torch.arange(begin, len(texts[-1]), device=row.device)
            before.append(number * length + own - 1)
            targets.append(texts[-1][own])
            answer.append(torch.full_like(own, number))
    padded = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    states: Tensor = module(input_ids=padded, use_cache=False).last_hidden_state
    flat = (torch.cat(parts) for parts in (before, targets, answer))
    return AnswerStates(states.flatten(0, 1), *flat)
