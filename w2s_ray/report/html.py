"""A report as one HTML page: no network, no other file, and no script needed to read it.

The page forbids itself to load anything and to run any script but its own
(``Content-Security-Policy``), beside escaping every text.
"""

import base64
import hashlib
from collections.abc import Iterator
from importlib.resources import files

from w2s_ray.report.figures import svg
from w2s_ray.report.html_tables import query_html, table_html, text_html
from w2s_ray.report.inline_svg import inline_svg
from w2s_ray.report.page import Block, Figure, Page, Section, Table, Warning
from w2s_ray.report.page_checks import check_page
from w2s_ray.report.shown import plain


def html(page: Page, svgs: dict[str, bytes] | None = None) -> str:
    """The whole page.

    Args:
        svgs: figures that are drawn already, by name; others are drawn.

    Raises:
        ValueError: the page cannot be written, see ``check_page``.
    """
    check_page(page)
    return "\n".join(_lines(page, svgs or {})) + "\n"


def _lines(page: Page, svgs: dict[str, bytes]) -> Iterator[str]:
    style, script = (_asset(f"report.{kind}") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}; img-src data:">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">'
    yield f"<title>{text_html(page.title)}</title>"
    yield f"<style>\n{style}</style>\n</head>\n<body>"
    yield '<a class="skip" href="#content">Skip to the content</a>'
    yield f'<header>\n<h1>{text_html(page.title)}</h1>\n<p class="subtitle">'
    yield f"{text_html(page.subtitle)}</p>"
    yield '<button type="button" id="theme" hidden>Theme: automatic</button>\n</header>'
    yield '<nav aria-label="Contents">\n<ol>'
    for section in page.sections:
        yield f'<li><a href="#{section.anchor}">{text_html(section.heading)}</a></li>'
    yield '</ol>\n</nav>\n<main id="content" tabindex="-1">'
    for section in page.sections:
        yield from _section(section, svgs)
    yield f"</main>\n<script>{script}</script>\n</body>\n</html>"


def _section(section: Section, svgs: dict[str, bytes]) -> Iterator[str]:
    yield f'<section aria-labelledby="{section.anchor}">'
    yield f'<h2 id="{section.anchor}">{text_html(section.heading)}</h2>'
    for block in section.blocks:
        yield from _block(block, svgs)
    yield "</section>"


def _block(block: Block, svgs: dict[str, bytes]) -> Iterator[str]:
    if isinstance(block, Table):
        yield from table_html(block)
    elif isinstance(block, Figure):
        yield from _figure(block, svgs.get(block.name) or svg(block))
    elif isinstance(block, Warning):
        yield f'<p class="warning"><strong>Warning.</strong> {text_html(block.text)}</p>'
    else:
        yield f"<p>{text_html(block.text)}</p>"
        if block.query:
            yield query_html(block.query)


def _figure(figure: Figure, drawn: bytes) -> Iterator[str]:
    name = f"figure-{figure.name}"
    yield f'<figure class="drawing" id="{name}">'
    yield (
        f'<div class="box" role="region" tabindex="0" aria-labelledby="{name}-caption">'
        f"{inline_svg(drawn, name, plain(figure.alt))}</div>"
    )
    yield f'<figcaption id="{name}-caption">{text_html(figure.caption)}</figcaption>'
    yield query_html(figure.query, f"figures/{figure.name}.csv")
    yield "</figure>"


def _asset(name: str) -> str:
    return files("w2s_ray.report").joinpath(name).read_text(encoding="utf-8")
