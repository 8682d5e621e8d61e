"""The spec that a command runs: its file, and what the command sets in place of values there."""

import argparse
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.loading import load, located
from w2s_ray.spec.overrides import Override, parsed
from w2s_ray.spec.schema import Spec
from w2s_ray.spec.smoke import smoke_of


class SpecFile(NamedTuple):
    """A spec that was read.

    Attributes:
        overrides: what the command set.
        lines: say so.
    """

    path: Path
    overrides: tuple[Override, ...]
    lines: tuple[str, ...]
    spec: Spec | GenerationSpec

    @classmethod
    def of(cls, options: argparse.Namespace) -> "SpecFile":
        """Reads the spec that the options name.

        Raises:
            SpecError: a mistake in the file or in the options.
        """
        path, overrides = options.spec, parsed(options.set)
        lines = (f"set          {', '.join(map(str, overrides))}",) if overrides else ()
        spec = load(path, overrides)
        if options.smoke:
            smoke = smoke_of(spec)
            overrides, lines = overrides + smoke.overrides, (*lines, f"smoke        {smoke.line}")
            spec = load(path, overrides)
        return cls(path, overrides, lines, spec)

    def located(self) -> AbstractContextManager[None]:
        """Adds the place in the file to mistakes that show after reading."""
        return located(self.path, self.overrides)

    @property
    def overridden(self) -> list[str]:
        """What the command set, as it was written."""
        return [str(override) for override in self.overrides]
