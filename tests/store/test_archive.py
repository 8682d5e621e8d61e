"""Archives: what a store exports another takes in, and what nobody has exported is refused."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import CompressedInputStream, OSFile
from rich.console import Console

from tests.testing.specs import tiny_spec
from w2s_ray.running import runner
from w2s_ray.store.__main__ import main
from w2s_ray.store.artifacts import Store
from w2s_ray.store.records import record_bytes
from w2s_ray.store.upkeep import collect
from w2s_ray.store.upkeep.archive import export
from w2s_ray.store.upkeep.intake import take_in
from w2s_ray.store.upkeep.inventory import read_inventory
from w2s_ray.store.upkeep.tar import ArchiveError, reading, writing
from w2s_ray.store.upkeep.verify import verify
from w2s_ray.study import main as run_study

QUIET = Console(quiet=True)
TABLES = ("results", "predictions", "train_predictions")
Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture(scope="module")
def bundled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished store of the tiny study, with bundles; to be copied, not to be changed."""
    folder = tmp_path_factory.mktemp("bundled")
    (folder / "study.yaml").write_text(yaml.safe_dump(tiny_spec(), sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "SMALLEST_BUNDLE", 2)
        assert run_study([str(folder / "study.yaml"), "--local"]) == 0
    return folder / "store"


@pytest.fixture
def bundled(
    bundled_store: Path,
    write_spec: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The spec of the tiny study, beside a finished store with bundles of its own."""
    monkeypatch.setattr(runner, "SMALLEST_BUNDLE", 2)
    shutil.copytree(bundled_store, tmp_path / "store")
    return write_spec()


@pytest.fixture
def archive(bundled: Path, tmp_path: Path) -> Path:
    assert bundled.exists()
    target = tmp_path / "tiny.tar"
    export(Store.open(tmp_path / "store"), "tiny", target, QUIET)
    return target


def folders(tmp_path: Path) -> int:
    """Number of artifacts and bundles of the study that was exported."""
    return len(read_inventory(Store.open(tmp_path / "store")).folders)


def members(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        return [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def rewritten(target: Path, contents: Members) -> Path:
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for info, content in contents:
            if info.isreg():
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target


def named(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_another_store_takes_in_a_study_and_has_nothing_to_do(
    bundled: Path, tmp_path: Path, capsys: Any
) -> None:
    first, second, third = (str(tmp_path / name) for name in ("store", "second", "third"))
    for name, source, target in (("a.tar.zst", first, second), ("b.tar", second, third)):
        file = str(tmp_path / name)
        assert main([source, "export", "tiny", file]) == 0
        assert "17 steps" in capsys.readouterr().out
        assert main([target, "import", file]) == 0
        assert "0 were there" in capsys.readouterr().out
        assert main([target, "import", file]) == 0
        assert "0 folders are new" in capsys.readouterr().out
        assert main([target, "verify"]) == 0
        capsys.readouterr()
        assert run_study([str(bundled), "--local", "--store", target]) == 0
        assert "0 steps to do" in capsys.readouterr().out
        for table in TABLES:
            name = f"{table}/tiny.parquet"
            assert (Path(target) / name).read_bytes() == (Path(first) / name).read_bytes()
        assert not collect.find(Store.open(target)).artifacts


def test_an_archive_goes_through_an_object_store(
    archive: Path, remote: Store, tmp_path: Path
) -> None:
    taken = take_in(remote, archive)
    assert taken.present == 0 and taken.committed == folders(tmp_path) and taken.notes == []
    assert verify(remote, QUIET).damaged == []
    back = tmp_path / "back.tar"
    export(remote, "tiny", back, QUIET)
    assert back.read_bytes() == archive.read_bytes()


def test_the_archive_is_one_that_tar_reads(bundled: Path, tmp_path: Path) -> None:
    assert bundled.exists()
    target = tmp_path / "tiny.tar.zst"
    export(Store.open(tmp_path / "store"), "tiny", target, QUIET)
    with (
        OSFile(str(target)) as file,
        CompressedInputStream(file, "zstd") as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        names = tar.getnames()
    assert names[0] == "archive.json" and "results/tiny.parquet" in names
    assert any(name.startswith("student/@4-") for name in names)


def test_names_of_any_length_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Of more than 100 bytes they stand before the file, in a block of their own."""
    names = ["short", f"student/{'a' * 150}/record.json", "student/b", f"{'ß' * 60}/c", "last"]
    target = tmp_path / "long.tar"
    with writing(target, compressed=False) as writer:
        for name in names:
            writer.add(name, len(name), io.BytesIO(name.encode()[: len(name)]))
    with reading(target) as found:
        assert [member.name for member in found] == names
    with tarfile.open(target) as tar:
        assert tar.getnames() == names


def test_what_is_there_stays(archive: Path, tmp_path: Path) -> None:
    other = Store.open(tmp_path / "other")
    other.write_json("studies/tiny.json", {"schema": 1, "study": "tiny", "cells": []})
    taken = take_in(other, archive)
    assert taken.committed == folders(tmp_path)
    assert "studies/tiny.json is there with other content and stays" in taken.notes[0]
    assert other.read_json("studies/tiny.json")["cells"] == []


def test_export_refuses_an_unknown_study_a_file_that_is_there_and_damage(
    bundled: Path, archive: Path, tmp_path: Path, capsys: Any
) -> None:
    store, new = tmp_path / "store", tmp_path / "new.tar"
    for arguments, complaint in (
        (("tinny", new), "given 'tinny', expected a study of this store (tiny)"),
        (("tiny", archive), "exists, expected a new file"),
        (("tiny", tmp_path / "x.zip"), "expected a name ending in .tar or .tar.zst"),
    ):
        assert main([str(store), "export", *map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert complaint in line
    (table,) = store.glob("student/@4-*/test.parquet")
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(bytes(content))
    assert main([str(store), "export", "tiny", str(new)]) == 2
    assert "test.parquet has the recorded size and another" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if "new.tar" in path.name]


def changed_key(contents: Members) -> Members:
    """Numbers of one configuration under the key of another."""
    record = json.loads(
        next(c for i, c in contents if i.name.startswith("prepare/") and "record" in i.name)
    )
    folder = f"prepare/{record['slug']}-{record['key']}"
    record["config"]["seed"] = 99
    record.pop("digest")
    return [
        (i, record_bytes(record) if i.name == f"{folder}/record.json" else c) for i, c in contents
    ]


def flipped(contents: Members) -> Members:
    return [(i, bytes([c[0] ^ 1]) + c[1:] if i.name.endswith("test.parquet") else c)
            for i, c in contents]  # fmt: skip


def after_first(extra: tarfile.TarInfo, content: bytes = b"") -> Callable[[Members], Members]:
    return lambda contents: [contents[0], (extra, content), *contents[1:]]


def renamed(old: str, new: str) -> Callable[[Members], Members]:
    def change(contents: Members) -> Members:
        for info, _ in contents:
            info.name = info.name.replace(old, new)
        return contents

    return change


def without(part: str) -> Callable[[Members], Members]:
    return lambda contents: [(i, c) for i, c in contents if part not in i.name]


HOSTILE: dict[str, tuple[Callable[[Members], Members], str]] = {
    "upwards": (after_first(named("../evil"), b"x"), "no path below a store"),
    "inside upwards": (after_first(named("student/../../evil"), b"x"), "no path below a store"),
    "absolute": (after_first(named("/tmp/evil"), b"x"), "no path below a store"),
    "control": (after_first(named("student/\x1b[2J"), b"x"), "no path below a store"),
    "symbolic link": (after_first(named("student", tarfile.SYMTYPE, "/etc")), "a symbolic link"),
    "hard link": (after_first(named("x", tarfile.LNKTYPE, "/etc/passwd")), "a hard link"),
    "device": (after_first(named("x", tarfile.CHRTYPE)), "a device"),
    "fifo": (after_first(named("x", tarfile.FIFOTYPE)), "a FIFO"),
    "folder": (after_first(named("student", tarfile.DIRTYPE)), "a folder"),
    "extended header": (after_first(named("x", tarfile.XHDTYPE), b""), "of type"),
    "claim": (after_first(named("claims/abc.0"), b"{}"), "no file of an archive"),
    "other study": (after_first(named("studies/mine.json"), b"{}"), "no file of an archive"),
    "reserved kind": (renamed("prepare/", "claims/"), "its record is of another step"),
    "other name": (renamed("prepare/", "student/"), "its record is of another step"),
    "flipped": (flipped, "another content than its digest says"),
    "another configuration": (changed_key, "is not the key of its configuration"),
    "file left out": (without("ground_truth.parquet"), "no file that the record of"),
    "artifact left out": (without("prepare/"), "folders announced"),
    "no head": (lambda contents: contents[1:], "it is not the first file"),
    "no study": (without("archive.json"), "it is not the first file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_one_line_and_leaves_nothing_of_it(
    case: str, archive: Path, tmp_path: Path, capsys: Any
) -> None:
    change, complaint = HOSTILE[case]
    bad = rewritten(tmp_path / "bad.tar", change(members(archive)))
    target = tmp_path / "target"
    assert main([str(target), "import", str(bad)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line and line.startswith(str(bad)) and line.isprintable()
    assert not (tmp_path / "evil").exists() and not (target / "studies").exists()
    if target.exists() and list(target.iterdir()):
        assert verify(Store.open(target), QUIET).damaged == []
    assert not list(target.rglob(".tmp-*")), "no workspace stays"


def test_truncated_archives_are_refused(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    for length in (0, 3, 511, 512, 700, len(content) // 2, len(content) - 20_000):
        bad = tmp_path / f"cut-{length}.tar"
        bad.write_bytes(content[:length])
        with pytest.raises(ArchiveError, match=r"expected an archive|ends"):
            take_in(Store.open(tmp_path / f"store-{length}"), bad)
    bad.write_bytes(b"\x28\xb5\x2f\xfd" + b"no zstd" * 100)
    with pytest.raises(ArchiveError, match=r"cannot be read|ends too early"):
        take_in(Store.open(tmp_path / "s"), bad)


def test_a_size_beyond_the_record_is_refused_before_it_is_read(
    archive: Path, tmp_path: Path
) -> None:
    """The header announces more than the record lists; nothing of it is written."""

    def longer(contents: Members) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        for info, content in contents:
            more = bytes(1 << 20) if info.name.endswith("ground_truth.parquet") else b""
            yield info, content + more

    bad = rewritten(tmp_path / "bad.tar", list(longer(members(archive))))
    with pytest.raises(ArchiveError, match=r"ground_truth.parquet has \d+ bytes, expected"):
        take_in(Store.open(tmp_path / "target"), bad)
