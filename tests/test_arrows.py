"""The arrows of the house point one way (docs: DESIGN §3), and heavy libraries stay in their rooms.

`violations` reads the source of a package with `ast` and returns one line for each broken rule. It
is asked about `w2s_ray`, and about small trees written here that break each rule once: a guard
that has never caught anything is not known to be awake.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "w2s_ray"

# A room may import from the groups before its own, and from itself; not from its group's others.
LAYERS = (
    {"errors", "order"},
    {"objectives"},
    {"spec"},
    {"store"},
    {"data"},
    {"catalog"},
    {"capacity"},
    {"plan"},
    {"models"},
    {"training"},
    {"steps"},
    {"running"},
    {"cluster"},
    {"report"},
    {"console"},
    {"study"},
)
# The only places, as prefixes of a file's path, that may import a library.
ONLY_IN = {
    "ray": ("cluster/", "data/stream.py"),
    "deepspeed": ("training/deepspeed_engine.py",),
}
# Places whose files must not import torch, at any depth of a function.
NO_TORCH = (
    "errors.py",
    "order.py",
    "spec/",
    "objectives/names.py",
    "objectives/noise.py",
    "store/",
    "data/",
    "catalog/",
    "capacity/",
    "plan/",
    "report/",
)
HEAVY = ("torch", "ray", "transformers", "deepspeed")
WORDLESS_NAMES = {"utils", "util", "helpers", "helper", "manager", "handler", "misc", "common"}
MAX_LINES = 400


def level(room: str) -> int | None:
    return next((i for i, group in enumerate(LAYERS) if room in group), None)


def imports(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and full dotted parts of everything imported, inside functions too.

    `package` is the dotted name of the package that holds the module, for relative imports. What
    `from a import b` names is given as `a.b`, whether b is a module or not.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                yield node.lineno, (*base, *module, alias.name)


def violations(root: Path) -> list[str]:
    """Every broken rule in the package at `root`, as `path:line: what`."""
    found = []
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root).as_posix()
        room = place.split("/")[0].removesuffix(".py")
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, place)
        own = level(room)
        if own is None and place != "__init__.py":
            found.append(f"{place}:1: room {room!r} has no place in the layers")
            continue
        if ast.get_docstring(tree) is None:
            found.append(f"{place}:1: no module docstring")
        if len(text.splitlines()) > MAX_LINES:
            found.append(f"{place}:{MAX_LINES}: longer than {MAX_LINES} lines")
        if WORDLESS_NAMES & {*path.stem.split("_"), *path.relative_to(root).parts[:-1]}:
            found.append(f"{place}:1: a name that says nothing")
        package = (root.name, *path.relative_to(root).parts[:-1])
        for line, parts in imports(tree, package):
            library = parts[0]
            if library == root.name and len(parts) > 1:
                other = level(parts[1])
                # A name that is no room can only be an attribute of the package itself.
                if other is None or parts[1] == room or (own is not None and other < own):
                    continue
                found.append(f"{place}:{line}: {room} imports {parts[1]}")
            if library in ONLY_IN and not place.startswith(ONLY_IN[library]):
                found.append(f"{place}:{line}: {library} outside of {ONLY_IN[library]}")
            if library == "torch" and place.startswith(NO_TORCH):
                found.append(f"{place}:{line}: torch in a room without it")
    return found


def loaded_after(code: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded after running `code`."""
    script = (
        f"{code}\nimport json, sys\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def write(root: Path, **files: str) -> Path:
    """A package at `root`/pkg from `room__file="source"`; each file gets a docstring."""
    for name, source in files.items():
        path = root / "pkg" / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""Says what it is for."""\n{source}\n')
    return root / "pkg"


def test_the_package_keeps_every_rule() -> None:
    found = violations(PACKAGE)
    assert not found, "\n".join(found)


def test_no_test_module_imports_another() -> None:
    """What they share is in `tests/testing`."""
    tests = Path(__file__).parent
    found = [
        f"{path.relative_to(tests)}:{line}: imports {'.'.join(parts)}"
        for path in sorted(tests.rglob("*.py"))
        for line, parts in imports(ast.parse(path.read_text(encoding="utf-8")), ("tests",))
        if parts[0] == "tests" and any(p == "conftest" or p.startswith("test_") for p in parts)
    ]
    assert not found, "\n".join(found)


def test_a_good_tree_has_no_violations(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        errors="",
        spec__schema="from ..errors import InputError\nfrom .fields import Path",
        spec__fields="import numpy",
        objectives__divergence="import torch",
        data__stream="import ray.data\nfrom pkg.store import Store",
        cluster__searcher="from ray import tune\nfrom pkg.steps import run",
        training__deepspeed_engine="def f():\n    import deepspeed",
        study="from pkg import spec, cluster, __version__",
    )
    assert violations(root) == []


@pytest.mark.parametrize(
    ("place", "source", "complaint"),
    [
        ("spec__schema", "from pkg.store import Store", "spec imports store"),
        ("objectives__names", "from ..spec import schema", "objectives imports spec"),
        ("spec__schema", "from .. import plan", "spec imports plan"),
        ("store__store", "import pkg.data.rows", "store imports data"),
        ("steps__weak", "def f():\n    from pkg.cluster import x", "steps imports cluster"),
        ("report__pages", "from pkg import study", "report imports study"),
        ("errors", "from . import order", "errors imports order"),
        ("plan__graph", "import torch", "torch in a room without it"),
        ("data__stream", "def f():\n    from torch import nn", "torch in a room without it"),
        ("objectives__names", "import torch.nn", "torch in a room without it"),
        ("data__rows", "import ray.data", "ray outside of"),
        ("steps__weak", "from ray import train", "ray outside of"),
        ("training__engine", "import deepspeed", "deepspeed outside of"),
        ("store__utils", "", "a name that says nothing"),
        ("store__claim_manager", "", "a name that says nothing"),
        ("helpers__rows", "", "room 'helpers' has no place"),
        ("store__long", "\n" * MAX_LINES, "longer than"),
    ],
)
def test_each_rule_catches_its_breach(
    tmp_path: Path, place: str, source: str, complaint: str
) -> None:
    (found,) = violations(write(tmp_path, **{place: source}))
    assert complaint in found
    assert found.startswith(place.replace("__", "/") + ".py:")


def test_a_module_without_a_docstring_is_caught(tmp_path: Path) -> None:
    root = write(tmp_path, errors="")
    (root / "errors.py").write_text("x = 1\n")
    assert violations(root) == ["errors.py:1: no module docstring"]


def test_the_command_starts_without_heavy_libraries() -> None:
    """`--plan`, `--status` and a mistake in the spec must not wait for torch or Ray."""
    if not (PACKAGE / "study.py").exists():
        pytest.skip("w2s_ray/study.py is not written yet")
    assert loaded_after("import w2s_ray.study") == set()


def test_rooms_without_torch_do_not_load_it_through_others() -> None:
    """The rule on imports holds at run time: not through an `__init__` or a third library."""
    names = [
        ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).as_posix().startswith(NO_TORCH)
        and path.name not in ("__init__.py", "__main__.py", "stream.py")
    ]
    assert names
    assert loaded_after("\n".join(f"import {name}" for name in names)) == set()


def test_the_probe_sees_a_heavy_library() -> None:
    assert loaded_after("import sys, types; sys.modules['torch'] = types.ModuleType('torch')") == {
        "torch"
    }
