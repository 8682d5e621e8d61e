"""transformers' cache of keys and values, with room ahead so that a token need not copy it.

``DynamicLayer`` concatenates at every token, which for a small model and a wide batch takes as long
as reading its weights. Layers of other kinds (sliding windows, recurrent states) are transformers'
own.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

_AHEAD = 128  # tokens


def growing_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for a model with this configuration."""
    cache = DynamicCache(config=config)
    kind: Any = _Growing
    cache.layers = [kind() if type(part) is DynamicLayer else part for part in cache.layers]
    return cache


def take_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Takes these rows, any of them more than once or not at all; every kind of layer can."""
    layers: Any = cache
    layers.reorder_cache(rows)


class _Growing(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers' hook
    """Keys and values of shape (rows, heads, T, width), views of longer buffers."""

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends the keys and values of new tokens; returns those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < after:
            kept = (self.keys, self.values) if before else (None, None)
            self._buffers = (
                _longer(kept[0], key_states, after + _AHEAD),
                _longer(kept[1], value_states, after + _AHEAD),
            )
        keys, values = self._buffers
        keys[:, :, before:after] = key_states
        values[:, :, before:after] = value_states
        self.keys, self.values = keys[:, :, :after], values[:, :, :after]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """As transformers' own. Where rows leave, only those are copied that take their places."""
        count = len(beam_idx)
        if self._buffers is None or count > len(self._buffers[0]):
            super().reorder_cache(beam_idx)
            self._buffers = None  # the next token makes new ones
            return
        moved = (beam_idx != torch.arange(count, device=beam_idx.device)).nonzero()[:, 0]
        length = self.get_seq_length()
        keys, values = (buffer[:count] for buffer in self._buffers)
        for target, source in zip((keys, values), self._buffers, strict=True):
            target[moved, :, :length] = source[beam_idx[moved], :, :length]
        self._buffers = (keys, values)
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]


def _longer(kept: Tensor | None, new: Tensor, length: int) -> Tensor:
    """A buffer of this length that begins with what is kept."""
    rows, heads, _, width = new.shape
    buffer = torch.empty((rows, heads, length, width), dtype=new.dtype, device=new.device)
    if kept is not None:
        buffer[:, :, : kept.shape[-2]] = kept
    return buffer
