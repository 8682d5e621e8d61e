"""Bytes a little different from valid ones, of which nothing but ``InputError`` may come."""

from hypothesis import strategies as st

SPECIAL = (b"\0", b"\xff" * 4, b"\xff" * 8, b"\x7f", b"[", b"{", b'"', b"\n", b",", b"1e999", b"-")


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with one to four changes: bytes overwritten, inserted, removed or repeated."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        size = draw(st.integers(1, 16))
        given = draw(st.one_of(st.sampled_from(SPECIAL), st.binary(min_size=1, max_size=16)))
        kind = draw(st.sampled_from(("overwrite", "insert", "remove", "repeat", "cut")))
        if kind == "overwrite":
            data[at : at + len(given)] = given
        elif kind == "insert":
            data[at:at] = given
        elif kind == "remove":
            del data[at : at + size]
        elif kind == "repeat":
            data[at:at] = data[at : at + size] * 3
        else:
            del data[at:]
    return bytes(data)
