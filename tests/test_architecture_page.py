"""ARCHITECTURE.md is true: its picture of packages, its functions, its files, its letters."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import w2s_ray
from w2s_ray.plan.kinds import KINDS
from w2s_ray.store.names import RESERVED

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "w2s_ray"
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
ARROW = re.compile(r"^  (\w+) --> (\w+)$", re.MULTILINE)
FUNCTION = re.compile(r"^\| `([\w/]+\.py)` \| `([\w.]+)` \|", re.MULTILINE)
ENTRY = re.compile(r"^( *)([\w.]+/?)(?: {2,}(\S.*))?$")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def modules() -> set[str]:
    paths = (path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
    return {path for path in paths if not path.endswith("__init__.py")}


def listed(tree: str) -> Iterator[tuple[str, str]]:
    """(path below the package, description) of each file in the annotated tree."""
    folders: list[str] = []
    for line in tree.strip().splitlines():
        entry = ENTRY.match(line)
        assert entry, f"neither a folder nor a file with what it is for: {line!r}"
        depth, name = len(entry[1]) // 2, entry[2]
        del folders[depth:]
        if name.endswith("/"):
            folders.append(name)
        else:
            yield "".join([*folders[1:], name]), entry[3] or ""


def imports() -> set[tuple[str, str]]:
    """(package, package that it imports) of all modules, at any depth of a function."""
    found: set[tuple[str, str]] = set()
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            parts = (name.split(".") for name in names if name.startswith("w2s_ray."))
            found |= {(own, part[1]) for part in parts if part[1] not in (own, "__version__")}
    return found


def reachable(arrows: set[tuple[str, str]], start: str) -> set[str]:
    seen: set[str] = set()
    stack = [start]
    while stack:
        here = stack.pop()
        onward = {target for source, target in arrows if source == here} - seen
        seen |= onward
        stack.extend(onward)
    return seen


def test_the_list_of_files_names_every_module_and_no_other() -> None:
    tree = section("Every file").split("```")[1]
    entries = dict(listed(tree))
    assert set(entries) == modules()
    assert [path for path, text in entries.items() if not text] == []


def test_the_picture_of_packages_has_every_import_and_no_other() -> None:
    arrows = set(ARROW.findall(section("Packages")))
    actual = imports()
    missing = {(a, b) for a, b in actual if b not in reachable(arrows, a)}
    assert missing == set()
    assert arrows - actual == set()
    circular = {package for package, _ in arrows if package in reachable(arrows, package)}
    assert circular == set()


def test_each_function_on_the_way_of_a_soft_label_is_where_the_page_says() -> None:
    named = FUNCTION.findall(section("The way of a soft label"))
    assert len(named) > 10
    for file, function in named:
        body: list[ast.stmt] = ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body
        for part in function.split("."):
            found = [
                node
                for node in body
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part
            ]
            assert found, f"{file} has no {function}"
            body = found[0].body


def test_every_kind_of_step_and_every_folder_of_the_store_is_explained() -> None:
    kinds = re.findall(r"^\| `(\w+)` \|", section("Steps"), re.MULTILINE)
    assert kinds == list(KINDS)
    folders = re.findall(r"^(\w+)/", section("The store"), re.MULTILINE)
    assert sorted(folders) == sorted(RESERVED)


def test_the_letters_are_those_of_the_package() -> None:
    table = re.findall(r"^\| (\w) \| (.+) \|$", section("Letters"), re.MULTILINE)
    legend = re.findall(r"^    (\w)   (.+)$", w2s_ray.__doc__ or "", re.MULTILINE)
    assert {letter for letter, _ in table} == {letter for letter, _ in legend}


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_and_targets_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = re.findall(r"`([\w.]+/[\w./]*\.py|(?:tests|docs)/[\w./]*)`", text)
    assert len(paths) > 10
    missing = {p for p in paths if not (ROOT / p).exists() and not (PACKAGE / p).exists()}
    assert missing == set()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z][a-z-]*)\b", "".join(re.findall("`.+?`", text))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("line", ["  a.py and more", "w2s ray/"])
def test_a_line_of_the_list_that_is_no_entry_is_refused(line: str) -> None:
    with pytest.raises(AssertionError, match="neither a folder nor a file"):
        list(listed(f"w2s_ray/\n{line}"))
