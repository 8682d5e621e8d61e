"""A figure's SVG as a part of an HTML page: colours by name, ids of its own, texts in its font."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from w2s_ray.report.figure_style import NAMES

LINK = "{http://www.w3.org/1999/xlink}href"
_ID_IN_STYLE = re.compile(r"url\(#([^)]+)\)")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_FONT = re.compile(r"'DejaVu Sans'(?:, [^;]*)?")


def inline_svg(svg: bytes, name: str, alt: str) -> str:
    """The element ``<svg>`` of a figure.

    Args:
        svg: as ``figures.svg`` wrote it.
        name: what its ids begin with, so that figures of one page share none.
        alt: read in its place by those who cannot see it.
    """
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = dict(_attributes(element, name))
        element.attrib.clear()
        element.attrib.update(attributes)
        element.tail = None
        if not (element.text or "").strip():
            element.text = None
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("metadata", "title")]:
            parent.remove(child)
    for unused in ("width", "height", "version"):
        root.attrib.pop(unused, None)
    width = root.attrib["viewBox"].split()[2]
    root.attrib.update({"role": "img", "aria-label": alt, "style": f"--width: {width}"})
    return ElementTree.tostring(root, encoding="unicode")


def _attributes(element: ElementTree.Element, name: str) -> Iterator[tuple[str, str]]:
    for attribute, value in element.attrib.items():
        if attribute == "id":
            yield "id", f"{name}-{value}"
        elif attribute in (LINK, "href"):
            # What is drawn refers to its own parts alone, or holds an image of many points.
            is_image = value.startswith("data:image/png;base64,")
            yield "href", value if is_image else f"#{name}-{value.removeprefix('#')}"
        elif "}" not in attribute:
            value = _ID_IN_STYLE.sub(rf"url(#{name}-\1)", value)
            value = _FONT.sub("var(--sans)", value)
            yield attribute, _COLOUR.sub(_named, value) if attribute == "style" else value


def _named(colour: re.Match[str]) -> str:
    name = NAMES.get(colour[0].lower())
    return f"var(--{name})" if name else colour[0]
