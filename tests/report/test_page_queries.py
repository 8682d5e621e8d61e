"""Fifty numbers drawn from all tables and figures of a page, each recomputed by its own query.

The queries are run as a reader would run them, in DuckDB on the files of the store. Intervals and
tests follow from the variance and degrees of freedom that the query of the power table gives.
"""

import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pytest
import yaml
from scipy.stats import t

from tests.testing.specs import REPOSITORY, tiny_spec
from w2s_ray.report.page import Figure, Page, Table
from w2s_ray.report.study_page import Choices, study_page
from w2s_ray.statistics.recalibration import halves
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

pytestmark = pytest.mark.long

NUMBERS, SEED = 50, 7
Record = dict[str, Any]

TABLES: dict[str, dict[str, str]] = {
    "accuracy": {
        **{f"{role}, %": f"{role}_accuracy" for role in ("weak", "student", "ceiling")},
        "gap recovered, %": "gap_recovered",
        "median seed, %": "median_seed",
        "middle half of seeds, %": "middle_half_of_seeds",
    },
    "differences": {
        "labels from uniform": "labels_from_uniform",
        "difference, points": "difference",
    },
    "treatments": {"difference, points": "difference"},
    "theory": {
        "residual of the identity": "residual",
        "slack of Theorem 2": "slack",
    },
    "cost": {name: name for name in ("students", "seconds", "tokens", "operations")},
    "cost-by-step": {
        **{name: name for name in ("steps", "seconds", "tokens", "operations")},
        "median seconds": "median_seconds",
        "fused, %": "fused",
    },
}
"""Columns with numbers of each table, and what its query calls them."""
TABLES["controls"] = TABLES["accuracy"]
FIGURES = {
    "accuracy-by-rate": ("learning_rate", "student_accuracy"),
    "accuracy-by-noise-ratio": ("noise_ratio", "student_accuracy"),
    "accuracy-by-step": ("step", "accuracy"),
    "weak-agreement-by-step": ("step", "weak_agreement"),
    "reliability": ("confidence", "accuracy"),
    "reliability-recalibrated": ("confidence", "accuracy"),
    "gain-by-misfit": ("misfit_forward", "gain"),
    "gain-by-misfit-on-training-rows": ("misfit_reverse", "gain"),
}
"""What a figure's query calls the coordinates of its points."""
LABELS = {"kind of step": "kind", "strong model": "strong"}


class Number(NamedTuple):
    """A number on a page: where it stands, its value, and what the query gives for it."""

    where: str
    shown: float
    recomputed: float


@pytest.fixture(scope="module")
def treated(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A study with a treatment, curves over steps, a further test set and an exact solver."""
    folder = tmp_path_factory.mktemp("treated")
    sizes = {"ground_truth": 48, "weak": 40, "test": 32}
    data = {"kind": "preference", "source": "generate:agreement", "sizes": sizes}
    further = {"more": str(REPOSITORY / "tests" / "golden" / "more_pairs.jsonl")}
    spec = tiny_spec(
        data={"pairs": {**data, "tests": further}},
        validation={"rows": 8},
        training__evaluations=3,
        grid__seed=[0, 1],
        grid__example_weight=["none", "confidence"],
    )
    (folder / "study.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    assert main([str(folder / "study.yaml"), "--local"]) == 0
    solved = tiny_spec(study="solved", training__solver="newton", grid__seed=[0])
    (folder / "solved.yaml").write_text(yaml.safe_dump(solved, sort_keys=False))
    assert main([str(folder / "solved.yaml"), "--local"]) == 0
    return Store.open(folder / "store")


@pytest.fixture(scope="module")
def pages(store: Store, treated: Store) -> dict[str, Page]:
    found = {name: study_page(treated, name, Choices()) for name in ("tiny", "solved")}
    return {"chosen": study_page(store, "tiny", Choices()), **found}


@pytest.fixture(scope="module")
def connection(store: Store, treated: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """With the table that the query of a recalibration needs (docs/report.md)."""
    files = [
        path
        for of in (store, treated)
        for path in Path(of.location("predictions")).glob("*.parquet")
    ]
    query = f"select distinct row_id from read_parquet({[str(file) for file in files]})"
    with duckdb.connect() as opened:
        ids = [row_id for (row_id,) in opened.sql(query).fetchall()]
        opened.register("recalibration_halves", pa.table({"row_id": ids, "half": halves(ids)}))
        yield opened


def blocks(page: Page) -> Iterator[Table | Figure]:
    for section in page.sections:
        yield from (block for block in section.blocks if isinstance(block, Table | Figure))


def answered(connection: duckdb.DuckDBPyConnection, query: str) -> list[Record]:
    found = connection.sql(query)
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def same(text: str, value: Any) -> bool:
    """Whether a cell's text is this value of an axis."""
    if value is None:
        return text == "all"
    return text == (f"{value:g}" if isinstance(value, float) else str(value))


def record_of(shown: Mapping[str, str], records: list[Record]) -> Record:
    """The one record whose axes are those that a row or a series shows."""
    found = [
        record
        for record in records
        if all(same(text, record[name]) for name, text in shown.items() if name in record)
        and ("loss" not in shown or not record.get("control"))
    ]
    assert len(found) == 1, f"{len(found)} records for {shown}"
    return found[0]


def of_table(table: Table, records: list[Record]) -> Iterator[Number]:
    titles = [column.title for column in table.columns]
    numbers = TABLES.get(table.name, {})
    for row in table.rows:
        texts = {
            LABELS.get(title, title.replace(" ", "_")): cell.text
            for title, cell in zip(titles, row, strict=True)
            if cell.text is not None and cell.value is None
        }
        for pair in filter(
            None, f"{texts.pop('treatment', '')}, {texts.pop('at', '')}".split(", ")
        ):
            name, value = pair.rsplit(" ", 1)
            texts[name.replace(" ", "_")] = value
        for title, cell in zip(titles, row, strict=True):
            where = f"{table.name}: {title}, {texts}"
            if table.name.startswith("transfer") and cell.value is not None:
                own = [record for record in records if record["test_set"] == title]
                score = next(name for name in own[0] if name.startswith("avg("))
                yield Number(where, cell.value, record_of(texts, own)[score])
            elif title in numbers and cell.value is not None:
                yield Number(where, cell.value, record_of(texts, records)[numbers[title]])
            if table.name == "power" and title.startswith("variance"):
                record = record_of(texts, records)
                parts = [record[f"variance_of_{name}"] for name in ("rows", "seeds", "rest")]
                for shown, part in zip(str(cell.text).split(", "), parts, strict=True):
                    yield Number(where, float(shown), float(f"{1e4 * part:.3g}"))


def intervals(page: Page, connection: duckdb.DuckDBPyConnection) -> Iterator[Number]:
    """Of the differences: mean ± t(df) √V, with V and df from the query of the power table."""
    tables = {block.name: block for block in blocks(page) if isinstance(block, Table)}
    table, records = tables["differences"], answered(connection, tables["power"].query)
    (at,) = (i for i, of in enumerate(table.columns) if of.title == "difference, points")
    titles = [column.title.replace(" ", "_") for column in table.columns]
    for row in table.rows:
        texts = {name: cell.text for name, cell in zip(titles, row, strict=True) if cell.text}
        record = record_of(texts, records)
        half = t.ppf(0.975, record["degrees_of_freedom"] or 1) * record["variance"] ** 0.5
        for sign, end in ((-1, row[at].low), (1, row[at].high)):
            assert end is not None
            yield Number(f"interval of {texts}", end, record["difference"] + sign * half)


def of_figure(figure: Figure, records: list[Record]) -> Iterator[Number]:
    """The y of each point, from the records of its series that are nearest to it."""
    x_name, y_name = FIGURES[figure.name]
    at = dict(re.findall(r"(noise ratio|example weight) (\w[\w.]*)", figure.caption))
    fixed = {name.replace(" ", "_"): text.rstrip(".") for name, text in at.items()}
    for line in figure.lines:
        own = [
            record
            for record in records
            if record["loss"] == line.name
            and all(same(text, record[name]) for name, text in fixed.items() if name in record)
        ]
        for x, y in zip(line.x, line.y, strict=True):
            assert y is not None
            near = min(own, key=lambda record: (abs(record[x_name] - x), abs(record[y_name] - y)))
            assert near[x_name] == pytest.approx(x, rel=1e-6)
            yield Number(f"{figure.name}: {line.name} at {x:g}", y, near[y_name])


def test_every_table_and_figure_names_a_query_that_runs(
    pages: dict[str, Page], connection: duckdb.DuckDBPyConnection
) -> None:
    named = set()
    for name, page in pages.items():
        for block in blocks(page):
            named.add(block.name)
            assert block.query, f"{name}: {block.name} names no query"
            if not (isinstance(block, Table) and not block.rows):
                assert answered(connection, block.query), f"{name}: {block.name}"
    assert named >= {*TABLES, *FIGURES, "transfer-gain", "power"}


def test_fifty_numbers_at_random_are_those_of_their_queries(
    pages: dict[str, Page], connection: duckdb.DuckDBPyConnection
) -> None:
    numbers: dict[str, list[Number]] = {}
    for name, page in pages.items():
        for block in blocks(page):
            records = answered(connection, block.query)
            if isinstance(block, Table):
                numbers[f"{name}: {block.name}"] = list(of_table(block, records))
            elif block.name in FIGURES:
                numbers[f"{name}: {block.name}"] = list(of_figure(block, records))
        numbers[f"{name}: intervals"] = list(intervals(page, connection))
    draw = random.Random(SEED)
    everything = sorted((number for of in numbers.values() for number in of), key=str)
    # One of every table and figure, the rest from all of them.
    drawn = [draw.choice(of) for of in numbers.values() if of]
    drawn += draw.sample(everything, max(0, NUMBERS - len(drawn)))
    assert len(drawn) >= NUMBERS and len(everything) > 200
    wrong = [
        number
        for number in drawn
        if number.shown != pytest.approx(number.recomputed, rel=1e-6, abs=1e-9)
    ]
    assert wrong == []
