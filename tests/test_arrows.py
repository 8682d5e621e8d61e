"""The arrows of the house point one way (ARCHITECTURE.md), and heavy libraries stay in their rooms.

`violations` reads the source of a package with `ast` and returns one line for each broken rule,
`circles` the modules of a room that import each other. Both are run on `w2s_ray`, and on small
trees written here that break each rule once, which shows that the checks can fail.
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
    {"masking", "printable"},
    {"contents", "errors", "finite", "half_logits", "order"},
    {"ending", "extras", "specs"},
    {"foreign", "objectives", "statistics"},
    {"spec"},
    {"store"},
    {"data"},
    {"tasks"},
    {"catalog"},
    {"capacity"},
    {"plan"},
    {"models"},
    {"training"},
    {"steps"},
    {"running"},
    {"cluster", "sinks"},
    {"report", "hub", "export"},
    {"console"},
    {"driver"},
    {"study"},
    {"__main__"},
)
# The only places, as prefixes of a file's path, that may import a library.
ONLY_IN = {
    "ray": ("cluster/", "data/stream.py"),
    "deepspeed": ("training/deepspeed_engine.py",),
}
# Names of Ray that are not public: those with a leading underscore, and Train V2's own modules.
RAY_INTERNALS = "cluster/ray_internals.py"
# Places whose files must not import torch, at any depth of a function.
NO_TORCH = (
    "errors.py",
    "foreign/",
    "hub/",
    "half_logits.py",
    "masking.py",
    "order.py",
    "spec/",
    "objectives/ensembles.py",
    "objectives/names.py",
    "objectives/noise.py",
    "objectives/temperature.py",
    "statistics/",
    "store/",
    "data/",
    "tasks/",
    "catalog/",
    "capacity/",
    "plan/",
    "printable.py",
    "report/",
    "sinks/feed.py",
    "sinks/messages.py",
    "sinks/process.py",
)
# What a room must not import although it is in a lower layer: it is handed in instead.
HANDED_IN = {
    "foreign": ("half_logits", "order"),
    "training": ("store", "models.model_card", "models.export"),
}
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
            if library == root.name:
                inside = ".".join((*parts[1:], ""))
                for name in HANDED_IN.get(room, ()):
                    if inside.startswith(f"{name}."):
                        found.append(f"{place}:{line}: {room} imports {name}")
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
        for line, parts in (*imports(tree, package), *attributes(tree)):
            if place != RAY_INTERNALS and parts[0] == "ray" and _is_private(parts):
                found.append(f"{place}:{line}: a private name of Ray outside {RAY_INTERNALS}")
    return found


def _is_private(parts: tuple[str, ...]) -> bool:
    if parts[:3] == ("ray", "train", "v2"):
        return True
    return any(part.startswith("_") and not part.endswith("__") for part in parts)


def attributes(tree: ast.Module) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and parts of every dotted name, `ray.train.v2.api` and the shorter ones in it."""
    for node in ast.walk(tree):
        parts: list[str] = []
        inner: ast.expr | None = node if isinstance(node, ast.Attribute) else None
        while isinstance(inner, ast.Attribute):
            parts.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield inner.lineno, (inner.id, *parts)


def circles(root: Path) -> list[tuple[str, ...]]:
    """Modules of one room that import each other, directly or not, as sorted paths.

    Imports inside functions do not count; those for type checkers do.
    """
    places = {path.relative_to(root).as_posix() for path in root.rglob("*.py")}
    edges: dict[str, set[str]] = {}
    for place in places:
        tree = ast.parse((root / place).read_text(encoding="utf-8"), place)
        package = (root.name, *Path(place).parts[:-1])
        tree.body = [_without_functions(node) for node in tree.body]
        named = {parts[1:] for _, parts in imports(tree, package) if parts[0] == root.name}
        modules = {"/".join(parts[:end]) + ".py" for parts in named for end in (2, len(parts))}
        room = place.split("/")[0]
        edges[place] = {other for other in modules & places if other.split("/")[0] == room}
    reached = {place: _reachable(place, edges) for place in places}
    return sorted(
        {
            tuple(sorted({other for other in reached[place] if place in reached[other]}))
            for place in places
            if place in reached[place]
        }
    )


def _without_functions(node: ast.stmt) -> ast.stmt:
    return ast.Pass() if isinstance(node, ast.FunctionDef | ast.ClassDef) else node


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    queue = [start]
    while queue:
        for other in edges[queue.pop()] - reached:
            reached.add(other)
            queue.append(other)
    return reached


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


def test_no_room_has_a_circle_of_imports() -> None:
    assert list(circles(PACKAGE)) == []


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
        cluster__ray_internals="from ray._private import worker\nimport ray.train.v2.api",
        training__deepspeed_engine="def f():\n    import deepspeed",
        training__fit="from pkg.models import exporter\nfrom pkg.models.backbone import Backbone",
        cluster__session="import ray\nx = ray.__version__, self._ray",
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
        ("training__job", "from pkg.store.checkpoints import x", "training imports store"),
        ("training__job", "def f():\n    from .. import store", "training imports store"),
        ("training__job", "from pkg.models import model_card", "imports models.model_card"),
        ("training__job", "import pkg.models.export", "training imports models.export"),
        ("cluster__session", "from ray._private import worker", "a private name of Ray"),
        ("cluster__session", "def f():\n    import ray.train.v2.api", "a private name of Ray"),
        ("cluster__session", "from ray.train.torch.config import _Torch", "a private name of Ray"),
        ("cluster__session", "x = ray._raylet", "a private name of Ray"),
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


@pytest.mark.parametrize(
    ("sources", "circle"),
    [
        (("from pkg.plan.b import x", "from .c import x", "from . import a"), "abc"),
        (("import pkg.plan.b", "if TYPE_CHECKING:\n    from .a import x", ""), "ab"),
        (("from .b import x", "def f():\n    from .a import x", ""), ""),
        (("from .b import x", "from .c import x", "from pkg.spec.a import x"), ""),
    ],
)
def test_circles_inside_a_room_are_caught(
    tmp_path: Path, sources: tuple[str, ...], circle: str
) -> None:
    a, b, c = sources
    root = write(tmp_path, plan__a=a, plan__b=b, plan__c=c, spec__a="")
    assert circles(root) == ([tuple(f"plan/{name}.py" for name in circle)] if circle else [])


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
