"""Golden values: numbers that may move only when the version of a kind of step is raised.

A key promises that whatever is stored under it would be computed again. Code that computes other
numbers under the same key breaks that promise without any sign: old and new artifacts mix in one
table. So a few numbers of every kind are committed as JSON, with the versions under which they
were computed. Where numbers move, a version must move too, and only then can the file be written
again. A name that is not committed yet, such as that of a new loss, has no number that could move:
it is not compared, and is added to the file without a raised version. A name that is gone has
moved.

Whole numbers, texts and row orders are compared exactly. Floats may differ by a relative 3e-5 (or
3e-6 for numbers near 0): another CPU has other vector instructions, hence another order of sums.
Kernels for SSE, AVX2 and AVX-512, and one thread against two, move the numbers of the twelve
updates of ``values.yaml`` by 6e-7 at most, and another processor (an EPYC without AVX-512) one
gradient norm of its students by 1.3e-5; a change of what is computed (a rate, a clip, a term
of a loss) moves some of them by 1e-4 and more. Its learning rates are low on purpose: at five
times these, rounding turns a student's own hard guesses about, and no tolerance would do.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RELATIVE = 3e-5
ABSOLUTE = 3e-6
SHOWN = 5  # differences that a message lists


@dataclass(frozen=True)
class Golden:
    """A few numbers and the versions that answer for them.

    Attributes:
        name: of the file; the kind of step, or the function.
        versions: by kind of step. The kinds that must be raised before the numbers may move.
        numbers: JSON values.
        enough: ``any`` where raising one of the kinds moves the key of these numbers, as it does
            for a step and everything it is computed from; ``all`` where each kind computes with
            them by itself, as with a loss that several kinds minimise.
    """

    name: str
    versions: Mapping[str, int]
    numbers: Mapping[str, Any]
    enough: Callable[[Iterable[bool]], bool] = any

    @property
    def content(self) -> dict[str, Any]:
        return {"versions": dict(self.versions), "numbers": rounded(self.numbers)}


class Moved(Exception):
    """Numbers that moved while no version did."""


def check(golden: Golden, folder: Path) -> None:
    """Compares numbers with the committed ones.

    Raises:
        Moved: they differ and the versions are the committed ones.
        AssertionError: the file is missing or of other versions, so it has to be written again.
    """
    again = "write the golden files again: see the last lines of the test's module"
    path = folder / f"{golden.name}.json"
    assert path.is_file(), f"{path.name} is missing; {again}"
    committed = json.loads(path.read_text())
    refuse_unversioned(golden, committed)
    assert committed["versions"] == dict(golden.versions), (
        f"{path.name} is of versions {committed['versions']}, the code of {dict(golden.versions)}; "
        f"{again}"
    )


def write(golden: Golden, folder: Path) -> bool:
    """Writes the file of a golden if it is new or a version was raised; else only adds new names.

    Returns:
        Whether the file was written.

    Raises:
        Moved: numbers differ from the committed ones, and no version was raised.
    """
    path = folder / f"{golden.name}.json"
    content = golden.content
    if path.is_file():
        committed = json.loads(path.read_text())
        refuse_unversioned(golden, committed)
        if committed["versions"] == content["versions"]:
            content["numbers"] = extended(committed["numbers"], content["numbers"])
        if content == committed:
            return False
    folder.mkdir(exist_ok=True)
    lines = json.dumps(content, indent=1, ensure_ascii=False)
    path.write_text(re.sub(r"\[\s+([^][{}]*?)\s+\]", _on_one_line, lines) + "\n")
    return True


def _on_one_line(numbers: re.Match[str]) -> str:
    return f"[{' '.join(numbers[1].split())}]"


def refuse_unversioned(golden: Golden, committed: Mapping[str, Any]) -> None:
    """Raises ``Moved`` where numbers differ from the committed ones under the same versions."""
    moved = differences(committed["numbers"], golden.content["numbers"])
    before = committed["versions"]
    raised = {kind: now > before.get(kind, 0) for kind, now in golden.versions.items()}
    if not moved or golden.enough(raised.values()):
        return
    if golden.enough is all:
        kinds, hint = " and ".join(kind for kind, up in raised.items() if not up), ""
    else:
        kinds, hint = golden.name, f"\n  (of {', '.join(raised)}: the first that moved)"
    listed = "".join(f"\n  {line}" for line in moved[:SHOWN])
    more = f"\n  … and {len(moved) - SHOWN} more" if len(moved) > SHOWN else ""
    raise Moved(
        f"golden numbers of {golden.name} moved: raise the version of kind {kinds} or undo"
        f"{hint if len(raised) > 1 else ''}{listed}{more}"
    )


def differences(committed: Any, now: Any, place: str = "") -> list[str]:
    """One line for each committed value that is another one now, or gone."""
    if isinstance(committed, Mapping) and isinstance(now, Mapping):
        pairs = [(f"{place}.{n}", value, now.get(n, "gone")) for n, value in committed.items()]
        return [line for name, a, b in pairs for line in differences(a, b, name.lstrip("."))]
    if isinstance(committed, list) and isinstance(now, list) and len(committed) == len(now):
        pairs = [
            (f"{place}[{i}]", a, b) for i, (a, b) in enumerate(zip(committed, now, strict=True))
        ]
        return [line for name, a, b in pairs for line in differences(a, b, name)]
    if type(committed) is type(now) is float:
        same = math.isclose(committed, now, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    else:
        same = type(committed) is type(now) and committed == now
    return [] if same else [f"{place}: {committed} → {now}"]


def extended(committed: Any, now: Any) -> Any:
    """The committed value with the names that only ``now`` has, in the order of ``now``."""
    if not (isinstance(committed, Mapping) and isinstance(now, Mapping)):
        return committed
    return {
        n: extended(committed[n], value) if n in committed else value for n, value in now.items()
    }


def rounded(value: Any) -> Any:
    """A JSON value with floats to nine digits, more than a float32 has."""
    if isinstance(value, Mapping):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value
