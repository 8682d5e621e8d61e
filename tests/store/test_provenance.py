"""What is recorded of the code is true: its own commit, its own changes, or nothing."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from w2s_ray.store.canonical import DIGEST_LENGTH
from w2s_ray.store.provenance import _digest, git_state, provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A committed package `repo/package`."""
    folder = tmp_path / "repo" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("x = 1\n")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-q", "-m", "first")
    return folder


def test_a_clean_tree_is_its_commit(package: Path) -> None:
    assert git_state(package) == {"commit": git(package, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("name", ["__init__.py", "new_module.py"])
def test_a_changed_or_new_file_of_the_package_is_dirt(package: Path, name: str) -> None:
    (package / name).write_text("x = 2\n")
    assert git_state(package)["dirty"] is True


def test_a_file_beside_the_package_is_none(package: Path) -> None:
    (package.parent / "notes.txt").write_text("x")
    assert git_state(package)["dirty"] is False


def test_code_below_a_foreign_repository_has_no_commit(package: Path) -> None:
    installed = package.parent / ".venv" / "installed"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert git_state(installed) == {"commit": None, "dirty": None}


def test_outside_of_git_and_before_the_first_commit_there_is_no_commit(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    assert git_state(tmp_path) == {"commit": None, "dirty": None}


def test_provenance_needs_no_import_of_what_it_names() -> None:
    script = """
import sys
from datetime import datetime, UTC
from w2s_ray.store.provenance import provenance
recorded = provenance(datetime.now(UTC), datetime.now(UTC))
assert {"torch", "ray", "transformers"} <= set(recorded["packages"]), recorded
assert not {"torch", "ray", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_times_are_utc_and_seconds_their_difference() -> None:
    started = datetime(2030, 1, 1, 12, tzinfo=UTC)
    recorded = provenance(started, started + timedelta(seconds=90.5))
    assert recorded["seconds"] == 90.5
    assert recorded["started"] == "2030-01-01T12:00:00.000000+00:00"
    assert recorded["pid"] == os.getpid()
    assert len(recorded["code"]["digest"]) == 20


def test_the_digest_of_the_code_is_of_names_and_contents_of_its_python_files(
    package: Path,
) -> None:
    digests = {_digest(package)}

    def changed() -> bool:
        digests.add(value := _digest(package))
        return len(digests) > before and len(value) == DIGEST_LENGTH

    for path, text in (
        ("__init__.py", "x = 2\n"),
        ("below/part.py", "x = 3\n"),
        ("part.py", ""),
        ("below/part.py", ""),
    ):
        before = len(digests)
        (package / path).parent.mkdir(exist_ok=True)
        (package / path).write_text(text)
        assert changed()
    before = len(digests)
    (package / "notes.txt").write_text("x")
    assert not changed()


def test_looking_at_the_state_leaves_the_index_alone(package: Path) -> None:
    """A refresh would take git's lock, and a commit at that moment would fail."""
    os.utime(package / "__init__.py", (0, 0))
    index = package.parent / ".git" / "index"
    before = index.read_bytes()
    assert git_state(package)["dirty"] is False
    assert index.read_bytes() == before
