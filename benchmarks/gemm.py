"""The matrix products of a model's blocks alone: the upper bound for its training speed."""

import time
from typing import Any

import torch
from torch import nn

from w2s_ray.models.backbone import load_backbone
from w2s_ray.spec.schema import ModelSpec


class Gemms:
    """Forward, input gradient and weight gradient of q, k, v, o, gate, up and down.

    Each block has its own weights, as in training, so that they are read from memory and not from a
    cache.

    Args:
        model: a model of a spec.
        tokens: T, rows of each product.
        threads: of torch.
        layers: number of blocks in one measurement.

    Attributes:
        parameters: N, the weights of all blocks that are multiplied with every token.
    """

    def __init__(self, model: dict[str, Any], tokens: int, threads: int, layers: int) -> None:
        backbone = load_backbone(ModelSpec.model_validate(model), "bf16", "cpu").module
        weights = [
            module.weight.detach() for module in backbone.modules() if isinstance(module, nn.Linear)
        ]
        self.parameters = sum(weight.numel() for weight in weights)
        self.tokens = tokens
        self._threads = threads
        self._weights = weights[: len(weights) * layers // backbone.config.num_hidden_layers]
        widths = {width for weight in weights for width in weight.shape}
        self._inputs = {width: torch.randn(tokens, width).bfloat16() for width in widths}
        self.rate()

    @torch.inference_mode()
    def rate(self) -> float:
        """FLOP/s of one sweep over the blocks, counting 6 FLOP per weight and token."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        started = time.perf_counter()
        for weight in self._weights:
            outputs, inputs = weight.shape
            x, gradient = self._inputs[inputs], self._inputs[outputs]
            nn.functional.linear(x, weight)
            gradient @ weight
            gradient.T @ x
        seconds = time.perf_counter() - started
        torch.set_num_threads(before)
        return 6 * self.tokens * sum(weight.numel() for weight in self._weights) / seconds
