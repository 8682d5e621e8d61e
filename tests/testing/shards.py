"""A stand-in for ZeRO 3 that takes parameters away as soon as they are loaded."""

import gc
from typing import Self

from torch import Tensor, nn


class Shards:
    """Takes parameters away, as ZeRO-3 does, and remembers them and how many were there at once.

    Used as a context, in which the collector, asked for all objects, names the new ones alone.
    """

    def __init__(self) -> None:
        self.taken: list[Tensor] = []
        self.most = 0

    def __enter__(self) -> Self:
        gc.freeze()
        return self

    def __exit__(self, *error: object) -> None:
        gc.unfreeze()

    def __call__(self, module: nn.Module) -> None:
        self.most = max(self.most, self.live())
        for parameter in module.parameters():  # of all that is below it, as DeepSpeed does
            if parameter.is_meta:
                raise NotImplementedError("no values below this module")
            if parameter.numel() == 0:
                continue
            self.taken.append(parameter.data.clone())
            parameter.data = parameter.data.new_empty(0)

    @staticmethod
    def live() -> int:
        """Elements of all new parameters on the CPU."""
        found = [o for o in gc.get_objects() if type(o) is nn.Parameter]
        return sum(p.numel() for p in found if p.device.type == "cpu")
