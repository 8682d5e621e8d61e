"""The spec that a command runs: its file, and what the command sets in place of values there."""

import argparse
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.loading import load, located
from w2s_ray.spec.overrides import Override, parsed
from w2s_ray.spec.schema import Spec


class SpecFile(NamedTuple):
    """A spec that was read.

    Attributes:
        overrides: what the command set.
    """

    path: Path
    overrides: tuple[Override, ...]
    spec: Spec | GenerationSpec

    @classmethod
    def of(cls, options: argparse.Namespace) -> "SpecFile":
        """Reads the spec that the options name.

        Raises:
            SpecError: a mistake in the file or in the options.
        """
        overrides = parsed(options.set)
        return cls(options.spec, overrides, load(options.spec, overrides))

    def located(self) -> AbstractContextManager[None]:
        """Adds the place in the file to mistakes that show after reading."""
        return located(self.path, self.overrides)

    @property
    def overridden(self) -> list[str]:
        """What the command set, as it was written."""
        return [str(override) for override in self.overrides]
