"""A constant has one home: no two modules of `w2s_ray` bind the same name or number by copying it.

`repeated` reads the source of a package with `ast`. It is run on `w2s_ray`, and on small packages
written here that break the rule once, which shows that the check can fail.
"""

import ast
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "w2s_ray"


def repeated(root: Path) -> list[str]:
    """Constants that stand in two modules, as `what: paths`.

    These are a name in capitals with the same value, a dictionary or sequence under any name, a
    number from 10,000 that is no unit (a power of ten, or less than a GiB in MiB), and the name of
    an environment variable.
    """
    homes: dict[str, set[str]] = defaultdict(set)
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for what in (*_constants(tree), *_numbers(tree), *_variables(tree)):
            homes[what].add(path.relative_to(root).as_posix())
    return [f"{what}: {', '.join(sorted(at))}" for what, at in homes.items() if len(at) > 1]


def _constants(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value: ast.expr | None = getattr(node, "value", None)
        if value is None or not isinstance(targets[0], ast.Name) or not targets[0].id.isupper():
            continue
        if not isinstance(value, ast.Call):
            yield f"{targets[0].id} = {ast.unparse(value)}"
        if isinstance(value, ast.Dict):
            pairs = zip(value.keys, value.values, strict=True)
            yield "; ".join(
                sorted(f"{key and ast.unparse(key)}: {ast.unparse(v)}" for key, v in pairs)
            )
        elif isinstance(value, ast.Tuple | ast.List) and len(value.elts) > 1:
            yield ast.unparse(value)


def _numbers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        value = _number(node)
        if value is not None and value >= 10_000:
            power_of_ten = value == 10 ** round(math.log10(value))
            mebibytes = value % (1 << 20) == 0 and value < 1 << 30
            if not power_of_ten and not mebibytes:
                yield f"{float(value):,}"


def _number(node: ast.AST) -> float | None:
    """The value of a number, or of a product, power or shift of numbers."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) in (int, float) else None
    if not isinstance(node, ast.BinOp):
        return None
    left, right = _number(node.left), _number(node.right)
    if left is None or right is None:
        return None
    if isinstance(node.op, ast.LShift):
        return int(left) << int(right)
    if isinstance(node.op, ast.Pow):
        return float(left**right)
    return left * right if isinstance(node.op, ast.Mult) else None


def _variables(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"^[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+$", node.value)


def package(root: Path, *sources: str) -> Path:
    """A folder of modules a.py, b.py and so on."""
    for name, source in zip("abc", sources, strict=False):
        (root / f"{name}.py").write_text(source)
    return root


def test_no_constant_has_two_homes() -> None:
    assert repeated(PACKAGE) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("RETRIES = 2", "RETRIES: int = 2"),
        ("A = {'x': 1, 'y': f.z}", "B = {'y': f.z, 'x': 1}"),
        ("A = ('x', 'y')", "B = ('x', 'y')"),
        ("A = 1 << 30", "def f(x=2**30): pass"),
        ("A = 50_000_000", "print(int(5e7))"),
        ("A = 32 * 1024", "print(32_768)"),
        ("A = {'RAY_ADDRESS': '1'}", "os.environ['RAY_ADDRESS']"),
    ],
)
def test_a_constant_with_two_homes_is_caught(tmp_path: Path, one: str, other: str) -> None:
    (found,) = repeated(package(tmp_path, one, other))
    assert found.endswith(": a.py, b.py")


def test_different_constants_may_look_alike(tmp_path: Path) -> None:
    root = package(
        tmp_path,
        "RETRIES = 2\nBYTES = 4 << 20\nA = 1e9\nB = (1,)\nlocal = 5",
        "RETRIES = 3\nBUFFER = 4 << 20\nC = 1_000_000_000\nD = (1,)\nlocal = 5",
    )
    assert repeated(root) == []
