"""The longest name of a study fits into every file name that is made of it."""

from w2s_ray.foreign.limits import limit
from w2s_ray.store.temporary import temporary_name


def test_the_longest_name_of_a_study_fits() -> None:
    """The longest file is the draft of a table's digest (``store.tables``)."""
    name = f".{'x' * limit('spec.name')}.parquet.sha256"
    assert len(temporary_name(name)) <= 255
