"""Every pointer into the documentation leads somewhere: citations in code, links between pages.

Two forms are read in the files that git knows:

* a citation, ``docs/losses.md §4 and §5``, in any text file, seen from the root of the repository;
  the page must have a heading ``## 4. …`` for each number. A page named without a number must
  exist, too, where it is written with its folder;
* a link ``[text](target)`` of a Markdown page, seen from that page, with its ``#heading``.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READ = {".md", ".py", ".yaml", ".yml", ".toml", ".txt", ".cff", ""}  # "": Makefile

PAGE = re.compile(r"(?<![\w./-])(?:docs/[\w./-]+|ARCHITECTURE|CONTRIBUTING|CHANGELOG)\.md\b")
CITATION = re.compile(r"(?<![\w./-])([\w./-]+\.md),? (§\d+(?:(?:, | and |, and )§\d+)*)")
SECTION = re.compile(r"^#{2,3} (\d+)\. ", re.MULTILINE)
FENCED = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`*$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)  # https:, mailto:
HEADING = re.compile(r"^#{1,6} (.+?) *$", re.MULTILINE)


def tracked(root: Path) -> list[Path]:
    """The text files that git knows, or would if they were added."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    paths = (root / name for name in listed if name)
    return sorted(p for p in paths if p.is_file() and not p.is_symlink() and p.suffix in READ)


def anchors(markdown: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    names: set[str] = set()
    for title in HEADING.findall(FENCED.sub("", markdown)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in names:
            number += 1
        names.add(name)
    return names


def broken_citations(root: Path, path: Path) -> Iterator[str]:
    """Pages and sections that the file names and that do not exist, with the line."""
    if path == Path(__file__).resolve():  # its examples are wrong on purpose
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{path.relative_to(root)}:{number}"
        for page in PAGE.findall(line):
            if not (root / page).is_file():
                yield f"{where}: no page {page}"
        for page, sections in CITATION.findall(line):
            if not (root / page).is_file():
                if not PAGE.fullmatch(page):  # else it is reported above
                    yield f"{where}: no page {page}; cite it from the root of the repository"
                continue
            present = set(SECTION.findall((root / page).read_text(encoding="utf-8")))
            for section in re.findall(r"\d+", sections):
                if section not in present:
                    yield f"{where}: {page} has no section {section}"


def broken_links(root: Path, path: Path) -> Iterator[str]:
    """Relative links of a Markdown page whose file or heading does not exist."""
    text = path.read_text(encoding="utf-8")
    prose = INLINE_CODE.sub("", FENCED.sub("", text))
    for link in LINK.findall(prose):
        if ELSEWHERE.match(link):
            continue
        where = f"{path.relative_to(root)}:{text[: text.index(f'({link})')].count(chr(10)) + 1}"
        name, _, heading = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists():
            yield f"{where}: no file {link}"
        elif heading and heading not in anchors(target.read_text(encoding="utf-8")):
            yield f"{where}: no heading {link}"


def broken(root: Path, paths: list[Path]) -> list[str]:
    found = [line for path in paths for line in broken_citations(root, path)]
    pages = [path for path in paths if path.suffix == ".md"]
    return found + [line for path in pages for line in broken_links(root, path)]


def test_every_pointer_into_the_documentation_leads_somewhere() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so it is not known which files belong to it")
    paths = tracked(ROOT)
    assert ROOT / "docs" / "losses.md" in paths
    assert any(CITATION.search(path.read_text(encoding="utf-8")) for path in paths)
    assert broken(ROOT, paths) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.py", '"""See docs/none.md."""', "a.py:1: no page docs/none.md"),
        ("a.py", "# docs/page.md §3", "a.py:1: docs/page.md has no section 3"),
        ("a.py", "# docs/page.md §1 and §7", "a.py:1: docs/page.md has no section 7"),
        ("a.py", "\n# page.md §1", "a.py:2: no page page.md; cite it from the root"),
        ("docs/b.md", "[x](none.md)", "docs/b.md:1: no file none.md"),
        ("docs/b.md", "\n[x](page.md#three)", "docs/b.md:2: no heading page.md#three"),
        ("docs/b.md", "[x](#below)", "docs/b.md:1: no heading #below"),
    ],
)
def test_a_broken_pointer_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("# Page\n\n## 1. One `x`\n\n## 2. Two\n")
    (tmp_path / name).write_text(text)
    (found,) = broken(tmp_path, [tmp_path / name])
    assert found.startswith(complaint)


def test_good_pointers_and_what_only_looks_like_one_are_accepted(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("# Page\n\n## 1. One `x`\n\n## 2. Two\n\n## 2. Two\n[up](../a.py)\n")
    code = tmp_path / "a.py"
    code.write_text('"""docs/page.md §1 and §2; docs/page.md, §1. A README.md is written."""\n')
    text = (
        "[a](docs/page.md#1-one-x) [b](docs/page.md#2-two-1) [c](https://example.org/none.md)\n"
        "```\n[d](none.md)\n```\n`[e](none.md)` [f](#top)\n# Top\n"
    )
    top = tmp_path / "README.md"
    top.write_text(text)
    assert broken(tmp_path, [page, code, top]) == []
