"""Tables of an HTML page: the first rows as HTML, all rows as data for the script.

A page with 10,000 rows stays small and usable that way, and readable without a script.
"""

import json
from collections.abc import Iterator, Sequence
from html import escape

from w2s_ray.report.page import Cell, Table, TableColumn
from w2s_ray.report.shown import ROWS_SHOWN, cell_text, plain, title


def table_html(table: Table) -> Iterator[str]:
    """Lines of the element ``<figure>`` of a table."""
    name = f"table-{table.name}"
    yield f'<figure class="table" id="{name}" data-rows="{ROWS_SHOWN}">'
    yield f'<figcaption id="{name}-caption">{text_html(table.caption)}</figcaption>'
    yield (
        f'<div class="box" role="region" tabindex="0" aria-labelledby="{name}-caption">'
        f'<table aria-labelledby="{name}-caption"><thead><tr>'
    )
    for column in table.columns:
        yield f'<th scope="col" class="{_class(column)}">{escape(title(column))}</th>'
    yield "</tr></thead><tbody>"
    for row in table.rows[:ROWS_SHOWN]:
        cells = zip(row, table.columns, strict=True)
        yield "<tr>" + "".join(_cell(cell, column) for cell, column in cells) + "</tr>"
    yield "</tbody></table></div>"
    if len(table.rows) > ROWS_SHOWN:
        yield (
            f'<p class="status" role="status">Rows 1 to {ROWS_SHOWN} of {len(table.rows):,}; all '
            f'are in <a href="tables/{table.name}.csv">tables/{table.name}.csv</a>.</p>'
        )
        yield f'<script type="application/json">{_rows_json(table)}</script>'
    for note in table.notes:
        yield f'<p class="note">{text_html(note)}</p>'
    yield query_html(table.query, f"tables/{table.name}.csv")
    yield "</figure>"


def text_html(text: str) -> str:
    """A text that nothing in it can turn into markup."""
    return escape(plain(text))


def query_html(query: str, file: str = "") -> str:
    """The address of a block's numbers as a file, and their query, folded; each where it is."""
    link = f'<a href="{file}">CSV</a>' if file else ""
    lines = "\n".join(map(plain, query.splitlines()))
    details = (
        f'<details><summary>Query</summary><pre tabindex="0">{escape(lines)}</pre></details>'
        if query
        else ""
    )
    return f'<div class="source">{link}{details}</div>'


def _cell(cell: Cell, column: TableColumn) -> str:
    text = cell_text(cell, column)
    if column.kind == "text":
        return f"<td>{escape(text)}</td>"
    value, bracket, rest = text.partition(" [")
    if not bracket or cell.text is not None:
        return f'<td class="n">{escape(text)}</td>'
    return f'<td class="n">{escape(value)} <span>[{escape(rest)}</span></td>'


def _class(column: TableColumn) -> str:
    return "t" if column.kind == "text" else "n"


def _rows_json(table: Table) -> str:
    """The shown texts by column; a column in which they repeat is a list and places in it."""
    columns: list[dict[str, list[str] | list[int]]] = []
    for index, column in enumerate(table.columns):
        texts = [cell_text(row[index], column) for row in table.rows]
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        if 2 * len(places) > len(texts):
            columns.append({"values": texts})
        else:
            columns.append({"values": list(places), "rows": [places[text] for text in texts]})
    return _embedded(columns)


def _embedded(data: Sequence[object]) -> str:
    """JSON that ends no element and starts none, whatever texts are in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
