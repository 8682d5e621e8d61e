"""What a step has computed is computed once, unless it cannot be read."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from w2s_ray.store.artifacts import Store
from w2s_ray.store.parts import Parts

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


class Counted:
    """Makes an array, and counts how often."""

    def __init__(self, values: NDArray[np.float32] = VALUES) -> None:
        self.values, self.calls = values, 0

    def __call__(self) -> NDArray[np.float32]:
        self.calls += 1
        return self.values


def flipped(content: bytes, place: int) -> bytes:
    damaged = bytearray(content)
    damaged[place] ^= 1
    return bytes(damaged)


def same(found: NDArray[np.float32], values: NDArray[np.float32] = VALUES) -> bool:
    return (
        found.dtype == values.dtype
        and found.shape == values.shape
        and bool((found == values).all())
    )


def test_a_part_is_made_once_and_read_after_that(store: Store) -> None:
    make = Counted()
    assert same(Parts(store, "abc").keep("test-0", make))
    assert same(Parts(store, "abc").keep("test-0", make))
    assert make.calls == 1
    assert store.listing("parts/abc") == ["test-0.npy"]


def test_parts_of_other_names_and_steps_are_others(store: Store) -> None:
    Parts(store, "abc").keep("test-0", Counted())
    for key, name in (("abc", "test-1"), ("abd", "test-0")):
        make = Counted(VALUES + 1)
        assert same(Parts(store, key).keep(name, make), VALUES + 1)
        assert make.calls == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:20],
        lambda whole: whole[:-1],
        lambda whole: b"x" * 99,
        lambda whole: flipped(whole, 7),
        lambda whole: flipped(whole, len(whole) - 40),
        lambda whole: flipped(whole, len(whole) - 1),
    ],
    ids=[
        "empty",
        "cut in the header",
        "cut at the end",
        "another file",
        "a bit of the header",
        "a bit of a number",
        "a bit of the digest",
    ],
)
def test_a_part_that_cannot_be_read_is_made_again(
    store: Store, damage: Callable[[bytes], bytes]
) -> None:
    make = Counted()
    Parts(store, "abc").keep("test-0", make)
    with store.open_file("parts/abc/test-0.npy") as file:
        whole = file.read()
    with store.writing("parts/abc/test-0.npy") as path:
        path.write_bytes(damage(whole))
    assert same(Parts(store, "abc").keep("test-0", make)) and make.calls == 2
    assert same(Parts(store, "abc").keep("test-0", make)) and make.calls == 2


def test_a_pickled_object_is_not_loaded(store: Store) -> None:
    with store.writing("parts/abc/test-0.npy") as path, path.open("wb") as file:
        np.save(file, np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    make = Counted()
    assert same(Parts(store, "abc").keep("test-0", make)) and make.calls == 1


def test_what_fails_keeps_nothing(store: Store) -> None:
    def fail() -> NDArray[np.float32]:
        raise FloatingPointError("no number")

    with pytest.raises(FloatingPointError):
        Parts(store, "abc").keep("test-0", fail)
    assert store.listing("parts/abc") == []


def test_the_parts_of_one_step_go_and_others_stay(store: Store) -> None:
    Parts(store, "abc").keep("test-0", Counted())
    Parts(store, "abd").keep("test-0", Counted())
    Parts(store, "abc").discard()
    assert store.listing("parts/abc") == []
    assert store.listing("parts/abd") == ["test-0.npy"]
    Parts(store, "abc").discard()


def test_what_is_missing_is_absent_or_damaged(store: Store) -> None:
    parts = Parts(store, "abc")
    assert parts.missing(["a", "b"]) == ["a", "b"]
    for name in ("a", "b", "c", "d"):
        parts.keep(name, Counted())
    for name, content in (("b", b"\x93NUMPY nothing"), ("c", b"")):
        with store.writing(f"parts/abc/{name}.npy") as target:
            target.write_bytes(content)
    with store.open_file("parts/abc/d.npy") as file:
        whole = file.read()
    with store.writing("parts/abc/d.npy") as target:
        target.write_bytes(whole[:-1])
    assert parts.missing(["a", "b", "c", "d", "e"]) == ["b", "c", "d", "e"]
