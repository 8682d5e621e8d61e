"""fp32 parameters that are stored in low precision, beside what they lack to their fp32 values.

ZeRO 3 wants one dtype for all trained parameters. So an fp32 head among bf16 parameters is stored
in bf16, and computes with the sum of that and its remainder.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization


class Remainder(nn.Module):
    """Parametrization of a weight stored in low precision: what it lacks to its fp32 master."""

    rest: Tensor

    def __init__(self, whole: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("rest", torch.empty_like(whole), persistent=False)
        self.update(whole)

    def forward(self, stored: Tensor) -> Tensor:
        return stored.float() + self.rest

    def update(self, whole: Tensor) -> None:
        self.rest.copy_(whole - whole.to(self.dtype).float())


@torch.no_grad()
def store_low(
    scorer: nn.Module, full: Sequence[nn.Parameter], dtype: torch.dtype
) -> dict[nn.Parameter, Remainder]:
    """Stores the fp32 parameters ``full`` in ``dtype``; their modules go on computing in fp32."""
    remainders = {}
    for module in list(scorer.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if any(parameter is p for p in full):
                remainders[parameter] = Remainder(parameter.detach(), dtype)
                parameter.data = parameter.data.to(dtype)
                register_parametrization(module, name, remainders[parameter], unsafe=True)
    return remainders
