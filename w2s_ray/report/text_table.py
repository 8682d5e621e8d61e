"""The table at the end of a run of generated text: the rate of each method. It is made from the
results table alone; a missing score is a dash, never a zero. PGR needs an interval: see the report.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from rich import box
from rich.table import Table

from w2s_ray.spec.methods import METHODS

_SHOWN = (
    ("rate", "rate", 100.0),
    ("transfer", "transfer_rate", 100.0),
    ("words", "words", 1.0),
    ("distinct-2", "distinct_2", 1.0),
    ("repeated", "repeated_4grams", 100.0),
    ("cut off", "cut_off", 100.0),
    ("log-ratio", "log_ratio", 1.0),
    ("perplexity", "perplexity", 1.0),
)
"""Title, column of the results, factor."""
_IN_HUNDREDS = 100.0
_ORDER = list(METHODS)


def text_tables(results: pa.Table) -> Iterator[Table]:
    """One table per pair of models, a line per method and α."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in results.to_pylist():
        groups[row["prompts"], row["weak"], row["strong"]].append(row)
    for (prompts, weak, strong), rows in groups.items():
        yield _table(f"{prompts}: {weak} → {strong}", rows)


def _table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    has_spread = len({row["seed"] for row in rows}) > 1
    caption = f"%{'; mean ± standard deviation of seeds' if has_spread else ', of one seed'}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, caption=caption)
    shown = [of for of in _SHOWN if any(row[of[1]] is not None for row in rows)]
    for name in ("method", "seeds", *(of[0] for of in shown)):
        is_name = name == "method"  # two methods may differ at their ends alone
        table.add_column(name, justify="left" if is_name else "right", no_wrap=is_name)
    lines: dict[tuple[str, float, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        axes = (row[name] or 0.0 for name in ("alpha", "learning_rate_factor"))
        lines[row["method"], *axes].append(row)
    factors = {row["learning_rate_factor"] for row in rows} - {None}
    for _, own in sorted(lines.items(), key=lambda line: (_ORDER.index(line[0][0]), line[0][1:])):
        name = _name(own[0], shows_factor=len(factors) > 1)
        finished = sum(row["rate"] is not None for row in own)
        seeds = f"{finished}" if finished == len(own) else f"{finished} of {len(own)}"
        cells = [_shown([row[column] for row in own], factor) for _, column, factor in shown]
        table.add_row(name, seeds, *cells)
    return table


def _name(row: dict[str, Any], *, shows_factor: bool) -> str:
    alpha, factor = row["alpha"], row["learning_rate_factor"]
    of_alpha = "" if alpha is None else f" α={alpha:g}"
    of_factor = f" lr×{factor:g}" if factor and shows_factor else ""
    return f"{row['method']}{of_alpha}{of_factor}"


def _shown(values: Sequence[float | None], factor: float) -> str:
    present = [factor * value for value in values if value is not None]
    if not present:
        return "–"
    digits = 1 if factor == _IN_HUNDREDS else 2
    spread = f" ± {np.std(present, ddof=1):.{digits}f}" if len(present) > 1 else ""
    return f"{np.mean(present):.{digits}f}{spread}"
