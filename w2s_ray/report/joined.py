"""Several studies on one page: each keeps its own sections, and nothing is averaged over them."""

import re
from collections.abc import Sequence
from dataclasses import replace

from w2s_ray.report.page import Block, Figure, Page, Section, Table, Text


def joined(pages: Sequence[Page], command: str) -> Page:
    """One page with the sections of all, the answers first.

    Args:
        command: makes this page.
    """
    sections = [
        _named(section, page, number)
        for number, page in enumerate(pages, start=1)
        for section in page.sections
    ]
    first = {page.sections[0].anchor for page in pages}
    sections.sort(key=lambda section: section.anchor.split("-", 1)[1] not in first)
    subtitle = "; ".join(f"{page.title}: {page.subtitle}" for page in pages)
    sections.append(Section("this-page", "This page", (Text(f"Made by: {command}"),)))
    return Page(f"{len(pages)} studies", subtitle, tuple(sections))


def _named(section: Section, page: Page, number: int) -> Section:
    """The section under names that no other study has."""
    prefix = f"s{number}"
    slug = re.sub(r"[^a-z0-9]+", "-", page.title.lower()).strip("-")
    blocks = tuple(_renamed(block, f"{prefix}-{slug}") for block in section.blocks)
    return Section(f"{prefix}-{section.anchor}", f"{page.title}: {section.heading}", blocks)


def _renamed(block: Block, prefix: str) -> Block:
    if isinstance(block, Table | Figure):
        return replace(block, name=f"{prefix}-{block.name}")
    return block
