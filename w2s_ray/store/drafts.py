"""Drafts: what a step writes before it is committed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from w2s_ray.contents import Content, write_content


@dataclass
class Draft:
    """An artifact in the making.

    Attributes:
        own: its folder; ``folder`` is the way to write there.
        metrics: JSON values for its record.
    """

    own: Path
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder for files that ``write`` has no format for; it exists."""
        return self.own

    def write(self, name: str, content: Content) -> None:
        """Keeps a table, an array or named tensors; the suffix says which (``contents``)."""
        write_content(self.own / name, content)


@dataclass
class MemberDraft(Draft):
    """One artifact of a bundle: what many have alike is kept here, to be written together.

    Attributes:
        contents: what was written, by name.
    """

    contents: dict[str, Content] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        self.own.mkdir(exist_ok=True)
        return self.own

    def write(self, name: str, content: Content) -> None:
        self.contents[name] = content
