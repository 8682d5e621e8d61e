"""One column of a table, and the types of columns."""

from typing import NamedTuple

import pyarrow as pa

TEXT, INT, REAL, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()


class Column(NamedTuple):
    """One column; ``unit`` is "" for text, flags and plain numbers."""

    name: str
    type: pa.DataType
    unit: str
    description: str
    nullable: bool = True


def never_null(name: str, type_: pa.DataType, description: str, unit: str = "") -> Column:
    """A column without nulls."""
    return Column(name, type_, unit, description, nullable=False)
