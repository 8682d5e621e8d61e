"""What the store must know of a step: what it computes, under which key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Identity:
    """A step's identity and its name for people; all values are JSON values.

    Attributes:
        slug: names the folder for people; identifies nothing.
        config: the whole resolved science configuration.
        inputs: role → key of the step that provides it.
    """

    kind: str
    key: str
    slug: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
