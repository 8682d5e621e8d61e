"""fp32 parameters stored in two parts: a low-precision value and an fp32 residual.

ZeRO 3 needs one dtype for all trained parameters. So an fp32 head among bf16 parameters is stored
in bf16, and computes with the sum of that value and its residual, which is the fp32 master.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization


class Residual(nn.Module):
    """Parametrization of a weight stored in low precision: its fp32 master minus what is stored."""

    value: Tensor

    def __init__(self, master: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("value", torch.empty_like(master), persistent=False)
        self.update(master)

    def forward(self, stored: Tensor) -> Tensor:
        """The fp32 master of the stored weight."""
        return stored.float() + self.value

    def update(self, master: Tensor) -> None:
        """Sets the residual for a new master; the stored weight is set elsewhere."""
        self.value.copy_(master - master.to(self.dtype).float())


@torch.no_grad()
def split_precision(
    scorer: nn.Module, full: Sequence[nn.Parameter], dtype: torch.dtype
) -> dict[nn.Parameter, Residual]:
    """Stores the fp32 parameters ``full`` in ``dtype``; their modules still compute in fp32."""
    residuals = {}
    for module in list(scorer.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if any(parameter is p for p in full):
                residuals[parameter] = Residual(parameter.detach(), dtype)
                parameter.data = parameter.data.to(dtype)
                register_parametrization(module, name, residuals[parameter], unsafe=True)
    return residuals
