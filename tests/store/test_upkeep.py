"""Upkeep of a store: what it says of a whole, a damaged, a neglected one, and what it removes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from w2s_ray.errors import InputError
from w2s_ray.running import runner
from w2s_ray.store.__main__ import main
from w2s_ray.store.artifacts import Store
from w2s_ray.store.identity import Identity
from w2s_ray.store.plans import save_plan
from w2s_ray.store.results import save_cells
from w2s_ray.store.study_tables import write_tables
from w2s_ray.store.upkeep import collect, remains
from w2s_ray.store.upkeep.inventory import read_studies
from w2s_ray.store.upkeep.overview import overview
from w2s_ray.store.upkeep.repair import made_again, set_aside
from w2s_ray.store.upkeep.verify import verify
from w2s_ray.study import main as run_study

QUIET = Console(quiet=True)


@pytest.fixture
def bundled(
    write_spec: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Path:
    """The spec of the tiny study, beside a finished store with bundles."""
    monkeypatch.setattr(runner, "SMALLEST_BUNDLE", 2)
    spec = write_spec()
    assert run_study([str(spec), "--local"]) == 0
    capsys.readouterr()
    assert list((tmp_path / "store/student").glob("@4-*"))
    return spec


def made(store: Store, study: Any, name: str = "hh", seeds: tuple[int, ...] = (0,)) -> Any:
    """A finished study with its tables."""
    finished = study(store, name, seeds)
    finished.finish_all()
    write_tables(store, name, finished.cells, None, trained_rows=True)
    return finished


def flip(files: Any, path: str) -> None:
    content = bytearray(files.read(path))
    content[len(content) // 2] ^= 1
    files.write(path, bytes(content))


def todo(spec: Path, capsys: Any) -> int:
    """Steps that a run of the study would have to do."""
    capsys.readouterr()
    assert run_study([str(spec), "--plan", "--json"]) == 0
    count: int = json.loads(capsys.readouterr().out)["todo"]
    return count


def test_ls_counts_steps_of_bundles_cells_and_what_lies_around(
    bundled: Path, tmp_path: Path, capsys: Any
) -> None:
    store = tmp_path / "store"
    assert main([str(store), "ls", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["artifacts"] == 17 and seen["kinds"]["student"]["artifacts"] == 4
    assert seen["kinds"]["student"]["bundles"] == 1 and seen["kinds"]["student"]["folders"] == 0
    on_disk = sum(
        path.stat().st_size
        for kind in seen["kinds"]
        for path in (store / kind).rglob("*")
        if path.is_file()
    )
    assert seen["bytes"] == on_disk
    expected = {"cells": 4, "done": 4, "failed": 0, "pending": 0, "steps": 17, "finished_steps": 17}
    assert seen["studies"] == {"tiny": expected}
    assert seen["damaged"]["count"] == seen["leftovers"]["count"] == 0
    assert main([str(store), "ls"]) == 0
    assert "student" in capsys.readouterr().out


def test_a_store_that_does_not_exist_is_one_line(tmp_path: Path, capsys: Any) -> None:
    for command in (["ls"], ["verify"], ["repair"], ["gc"], ["export", "x", "x.tar"]):
        assert main([str(tmp_path / "no"), *command]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("STORE: ") and line.endswith("expected a store")
    assert not (tmp_path / "no").exists()


def test_overview_of_cells_in_every_state(store: Store, study: Any) -> None:
    cells = study(store, "hh", (0, 1))
    cells.finish_all(cells.cells[:1])
    failing = cells.cells[1]
    store.record_failure(cells.step("student", failing), "out of luck")
    save_cells(store, "hh", cells.cells)
    save_plan(store, "later", ["x1", "x2"])
    studies = overview(store).studies
    assert studies["hh"][:4] == (4, 1, 1, 2)
    assert studies["later"] == (0, 0, 0, 0, 2, 0), "its first run was interrupted"


def test_verify_finds_every_flipped_file_and_changes_nothing(
    store: Store, study: Any, raw: Any
) -> None:
    made(store, study)
    files = raw(store.backend)
    assert verify(store, QUIET).damaged == []
    kinds = ("student/", "prepare/", "results/", "evaluate/")
    paths = [p for p in files.files() if p.startswith(kinds) and "/." not in p]
    assert len(paths) > 8
    for path in paths:
        whole = files.read(path)
        flip(files, path)
        before = files.files()
        (damage,) = verify(store, QUIET).damaged
        folder = path if path.startswith("results/") else "/".join(path.split("/")[:2])
        assert f"{folder} is damaged: " in damage.line and "\n" not in damage.line
        assert files.files() == before
        files.write(path, whole)
    assert verify(store, QUIET).damaged == []


def test_verify_says_what_is_missing_and_what_is_a_folder(local: Store, study: Any) -> None:
    made(local, study)
    root = Path(local.uri)
    first, second, *_ = sorted(root.glob("student/*/test.parquet"))
    first.unlink()
    second.unlink()
    second.mkdir()
    lines = [damage.line for damage in verify(local, QUIET).damaged]
    assert len(lines) == 2 and all("test.parquet" in line for line in lines)
    assert all(damage.error is not None for damage in verify(local, QUIET).damaged)


def test_repair_sets_aside_only_when_told_and_the_next_run_makes_it_again(
    bundled: Path, tmp_path: Path, capsys: Any
) -> None:
    store = tmp_path / "store"
    (table,) = store.glob("student/@4-*/test.parquet")
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(bytes(content))
    assert main([str(store), "verify"]) == 1
    assert "test.parquet has the recorded size and another content" in capsys.readouterr().out
    assert main([str(store), "repair"]) == 1
    said = capsys.readouterr().out
    assert "the next run of study tiny makes 4 steps again" in said
    assert "nothing was changed; --yes sets 1 artifact aside" in said
    assert table.exists()
    assert main([str(store), "repair", "--yes"]) == 0
    assert not table.exists() and list(store.glob("damaged/student/@4-*"))
    assert todo(bundled, capsys) == 4
    assert run_study([str(bundled), "--local"]) == 0
    assert main([str(store), "verify"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("whole ")


def test_repair_of_a_damaged_record(store: Store, study: Any, raw: Any) -> None:
    made(store, study)
    files = raw(store.backend)
    record = next(p for p in files.files() if p.startswith("student/") and "record" in p)
    flip(files, record)
    damages = verify(store, QUIET).damaged
    assert len(damages) == 1 and list(made_again(damages[0], read_studies(store)))
    (moved,) = set_aside(store, damages)
    assert "damaged/student/" in moved and verify(store, QUIET).damaged == []
    assert list(set_aside(store, damages)) == [f"{damages[0].error.path} is gone already"]
    assert overview(store).set_aside.count == 1


def test_gc_removes_what_no_study_needs_and_nothing_else(
    store: Store, study: Any, raw: Any
) -> None:
    kept, other = made(store, study, "kept"), made(store, study, "other", (0, 7))
    for path in ("studies/other.json", "plans/other.json"):
        store.remove(path)
    finished = set(store.finished())
    needed = {key for cell in kept.cells for key in cell["keys"].values()}
    before = raw(store.backend).files()
    found = collect.find(store)
    assert raw(store.backend).files() == before, "finding removes nothing"
    gone = {key for folder in found.artifacts for key in folder.keys}
    assert gone == finished - needed and gone
    list(collect.collect(store, found))
    assert set(store.finished()) == needed
    assert not [p for p in raw(store.backend).files() for key in gone if key in p]
    assert not collect.find(store).artifacts
    assert other.cells


def test_inputs_of_what_a_study_names_are_needed_too(store: Store) -> None:
    for key, inputs in (("a1", {}), ("b1", {"from": "a1"}), ("c1", {"from": "b1"}), ("d1", {})):
        with store.draft(Identity("student", key, "x", 1, {}, inputs), {}):
            pass
    save_plan(store, "hh", ["c1"])
    assert [folder.keys for folder in collect.find(store).artifacts] == [("d1",)]


def test_gc_of_a_bundled_store_leaves_nothing_to_do(
    bundled: Path, write_spec: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    """Another study shares a part of it; its own bundles go with it, shared ones stay."""
    store = tmp_path / "store"
    more = write_spec("more.yaml", study="more", grid__noise_ratio=[0.0, 0.5], grid__seed=[0, 1])
    assert run_study([str(more), "--local"]) == 0
    assert main([str(store), "gc"]) == 0
    assert "can go       0 items" in capsys.readouterr().out
    (store / "studies/more.json").unlink()
    (store / "plans/more.json").unlink()
    count = len(Store.open(store).finished())
    assert main([str(store), "gc"]) == 0
    assert "with --yes" in capsys.readouterr().out and len(Store.open(store).finished()) == count
    assert main([str(store), "gc", "--yes"]) == 0
    assert len(Store.open(store).finished()) < count
    assert todo(bundled, capsys) == 0
    assert run_study([str(bundled), "--local"]) == 0
    assert main([str(store), "verify"]) == 0


def test_an_interrupted_study_keeps_what_it_has_made(store: Store, study: Any) -> None:
    """Its cells are written at the end of a run; its plan at the beginning."""
    unfinished = study(store, "hh", (0,))
    save_plan(store, "hh", {k for cell in unfinished.cells for k in cell["keys"].values()})
    unfinished.finish_all(unfinished.cells[:1])
    assert not collect.find(store).artifacts
    store.remove("plans/hh.json")
    with pytest.raises(InputError, match="it has no study; expected studies/ or plans/"):
        collect.find(store)


def test_gc_refuses_where_needs_cannot_be_read(store: Store, study: Any, raw: Any) -> None:
    made(store, study)
    files = raw(store.backend)
    for path in (next(p for p in files.files() if p.endswith("record.json")), "studies/hh.json"):
        whole = files.read(path)
        files.write(path, whole[:-3])
        with pytest.raises(collect.DamagedStore, match=r"nothing was removed: .*is damaged"):
            collect.find(store)
        files.write(path, whole)
    assert not collect.find(store).artifacts


def test_no_artifact_goes_while_a_process_works_on_the_store(store: Store, study: Any) -> None:
    made(store, study, "kept")
    made(store, study, "other", (5,))
    store.remove("studies/other.json")
    with store.claim("somekey"):
        found = collect.find(store)
        assert found.artifacts == [] and found.kept and found.live == {"somekey"}
        assert [each.path for each in found.remains] == []
    assert collect.find(store).artifacts == found.kept


def test_damaged_goes_unless_it_is_kept(store: Store, study: Any, raw: Any) -> None:
    made(store, study)
    files = raw(store.backend)
    flip(files, next(p for p in files.files() if p.startswith("student/") and "test.p" in p))
    damages = verify(store, QUIET).damaged
    list(set_aside(store, damages))
    old = damages[0].error.path
    study(store, "hh", (0,)).finish_all()
    assert collect.find(store, keep_damaged=True).damaged == []
    found = collect.find(store)
    assert len(found.damaged) == 1
    assert list(collect.collect(store, found)) == found.damaged
    left = files.files()
    assert not [p for p in left if p.startswith("damaged/")]
    assert len({p.split("/")[2] for p in left if p.startswith(f"{old}/files-")}) <= 1
    assert verify(store, QUIET).damaged == []


def test_leftovers_of_dead_processes_and_of_finished_steps_go(
    local: Store, study: Any, tmp_path: Path
) -> None:
    finished = made(local, study)
    key = finished.cells[0]["keys"]["student"]
    for owner in (key, "unneeded", "running"):
        local.backend.write(f"checkpoints/{owner}/000000001-state", bytes(1000))
    local.backend.write(f"failures/{key}.json", b"{}")
    root = Path(local.uri)
    script = (
        "import os, sys\nfrom w2s_ray.store.artifacts import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "store.backend.workspace('student', 'dead').joinpath('x').write_bytes(bytes(500))\n"
        "claim = store.claim('dead')\nclaim.__enter__()\nos._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(root)], check=False).returncode == 9
    save_plan(local, "hh", ["running"])
    with local.claim("running"):
        found = collect.find(local)
        paths = {each.path: each.tree.bytes for each in found.remains}
        (temporary,) = (path for path in paths if ".tmp-" in path)
        assert paths == {
            temporary: 500,
            "claims/dead": 0,
            f"checkpoints/{key}": 1000,
            "checkpoints/unneeded": 1000,
            f"failures/{key}.json": 2,
        }
        assert overview(local).leftovers.count == 4, "what studies need is the question of gc"
        assert set(collect.collect(local, found)) == set(found.remains)
        assert not (root / temporary).exists() and local.claimed() == {"running"}
        assert local.listing("checkpoints") == ["running"]
    assert collect.find(local).remains == []


def test_an_upload_that_did_not_end_goes_after_a_day(
    remote: Store, study: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(remote, study)
    files = raw(remote.backend)
    files.write(f"student/x-abc/files-{'0' * 16}/model", bytes(10))
    files.write("student/notes-of-mine/readme.txt", b"mine")
    assert collect.find(remote).remains == []
    monkeypatch.setattr(remains, "ABANDONED_AFTER_SECONDS", -1.0)
    found = collect.find(remote)
    assert [each.path for each in found.remains] == ["student/x-abc"]
    list(collect.collect(remote, found))
    assert [p for p in files.files() if "/x-abc" in p or "mine" in p] == [
        "student/notes-of-mine/readme.txt"
    ]
    shutil.rmtree(remote.backend._cache.root, ignore_errors=True)
    assert verify(remote, QUIET).damaged == [] and not remote.backend._cache.root.exists()
