"""The promises that need real processes: killed, racing, dead, asleep."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from hashlib import sha256
from itertools import chain
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest
from pyarrow import fs

from w2s_ray.store import claims, heartbeat, system
from w2s_ray.store.artifacts import Store
from w2s_ray.store.identity import Identity
from w2s_ray.store.object_store import ObjectStoreBackend
from w2s_ray.store.owners import this_process
from w2s_ray.store.system import System

COMMIT_FOR_EVER = """
import os, sys
from hashlib import sha256
from w2s_ray.store.identity import Identity
from w2s_ray.store.artifacts import Store
store = Store.open(sys.argv[1])
for n in range(1_000_000):
    with store.draft(Identity("student", f"{os.getpid()}x{n}", "hh", 1, {}, {}), {}) as draft:
        total = sha256()
        for part in range(20):
            data = os.urandom(20_000)
            (draft.folder / f"part{part}").write_bytes(data)
            total.update(data)
        draft.metrics["sha256"] = total.hexdigest()
    if n == 3:
        print("ready", flush=True)
"""

WORK_ON_A_LIST = """
import random, sys, time
from pathlib import Path
import fsspec
from pyarrow import fs
from w2s_ray.store.identity import Identity
from w2s_ray.store.artifacts import Store
from w2s_ray.store.object_store import ObjectStoreBackend
kind, root, log, count = sys.argv[1:]
if kind == "local":
    store = Store.open(root)
else:
    files = fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("file", auto_mkdir=True)))
    store = Store(ObjectStoreBackend(files, root, cache=Path(log + ".cache")))
keys = [f"k{n}" for n in range(int(count))]
random.shuffle(keys)
print("ready", flush=True)
sys.stdin.readline()
while not set(keys) <= set(store.finished()):
    for key in keys:
        if store.has(key):
            continue
        with store.claim(key) as held:
            if held and not store.has(key):
                with open(log, "a") as file:
                    file.write(key + "\\n")
                with store.draft(Identity("student", key, "hh", 1, {}, {}), {}) as draft:
                    (draft.folder / "weights").write_text(key)
                    time.sleep(0.005)
    time.sleep(0.01)
"""

TAKE_OVER = """
import sys, time
from contextlib import ExitStack
from w2s_ray.store.artifacts import Store
store, count = Store.open(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
begin = float(sys.stdin.readline())
with ExitStack() as held:
    for n in range(count):
        while time.time() < begin + 0.01 * n:
            pass
        if held.enter_context(store.claim(f"k{n}")):
            print(f"k{n}", flush=True)
    print("end", flush=True)
    sys.stdin.readline()
"""

HOLD_AND_DIE = """
import os, random, sys, time
from pathlib import Path
from w2s_ray.store import claims, system
from w2s_ray.store.heartbeat import Heartbeat
from w2s_ray.store.owners import Owner, this_process
folder, inside = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
end, held_times = float(sys.stdin.readline()), 0
def hold(dies):
    with claims.local_claim(folder, "k0") as held:
        if held:
            try:
                with open(inside, "x") as file:
                    file.write(this_process().token)
            except FileExistsError:
                if not Owner.parse(inside.read_text()).is_dead:
                    os._exit(9)  # two live processes hold one key
                inside.write_text(this_process().token)
            time.sleep(0.001)
            if dies:
                os._exit(0)  # as kill -9: nothing is released
            inside.unlink()
        return held
while time.time() < end or not held_times:
    held_times += hold(dies=False)
    if random.random() < 0.1:
        child = os.fork()
        if not child:
            system.HEARTBEAT = Heartbeat()
            hold(dies=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit("two held the key")
print(held_times)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process


def ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def send(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def test_after_kill_9_every_readable_artifact_is_whole(local: Store) -> None:
    for delay in (0.0, 0.013, 0.03):
        process = start(COMMIT_FOR_EVER, local.uri)
        ready(process)
        time.sleep(delay)
        process.kill()
        process.wait()
    finished = local.finished()
    assert len(finished) >= 3 * 4
    for key in finished:
        artifact = local.artifact(key)
        total = sha256()
        for part in range(20):
            total.update((artifact.folder / f"part{part}").read_bytes())
        assert total.hexdigest() == artifact.record["metrics"]["sha256"]
    # Temporary files of dead processes are removed when the next process begins to write.
    with Store.open(local.uri).draft(Identity("student", "a1", "hh", 1, {}, {}), {}):
        pass
    assert not list(Path(local.uri).rglob(".tmp-*"))


def test_kill_9_in_the_middle_of_a_draft_leaves_nothing_to_read(local: Store) -> None:
    script = """
import sys, time
from w2s_ray.store.identity import Identity
from w2s_ray.store.artifacts import Store
with Store.open(sys.argv[1]).draft(Identity("student", "a1", "hh", 1, {}, {}), {}) as draft:
    (draft.folder / "test.parquet").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""
    process = start(script, local.uri)
    ready(process)
    assert len(list(Path(local.uri).rglob("test.parquet"))) == 1, "it was being written"
    process.kill()
    process.wait()
    assert local.finished() == {}
    assert not local.has("a1")
    with pytest.raises(KeyError):
        local.artifact("a1")
    with Store.open(local.uri).draft(Identity("student", "a1", "hh", 1, {}, {}), {}) as draft:
        assert not list(draft.folder.iterdir())
    assert local.has("a1")
    assert not list(Path(local.uri).rglob("test.parquet"))


@pytest.mark.parametrize(("kind", "count"), [("local", 50), ("object store", 3)])
def test_processes_that_share_a_list_run_each_step_exactly_once(
    tmp_path: Path, kind: str, count: int
) -> None:
    logs = [tmp_path / "log0", tmp_path / "log1", tmp_path / "log2"]
    root = tmp_path / "store"
    processes = [start(WORK_ON_A_LIST, kind, root, log, count) for log in logs]
    for process in processes:
        ready(process)
    for process in processes:
        send(process, "go")
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    done = [log.read_text().split() if log.exists() else [] for log in logs]
    assert sorted(chain.from_iterable(done)) == sorted(f"k{n}" for n in range(count))
    if kind == "local":
        assert sum(map(bool, done)) > 1, "they did race"
        assert not any((root / "claims").iterdir()), "claims are released"


def test_one_of_many_takes_over_each_stale_claim(local: Store) -> None:
    count, folder = 40, Path(local.uri) / "claims"
    corpse = subprocess.Popen([sys.executable, "-c", ""])
    corpse.wait()
    machine = this_process().machine
    folder.mkdir(parents=True)
    for n in range(count):
        text = json.dumps({"owner": f"{machine}.{corpse.pid}.1", "beat": 0, "id": n})
        (folder / f"k{n}.0").write_text(text)
    processes = [start(TAKE_OVER, local.uri, count) for _ in range(3)]
    for process in processes:
        ready(process)
    begin = time.time() + 0.05
    for process in processes:
        send(process, str(begin))
    held: list[str] = []
    for process in processes:
        assert process.stdout is not None
        held += iter(lambda file=process.stdout: file.readline().strip(), "end")  # type: ignore[misc]
    for process in processes:
        send(process, "exit")
        assert process.wait(60) == 0
    assert sorted(held) == sorted(f"k{n}" for n in range(count))
    assert not any(folder.iterdir())


def test_a_claim_released_and_taken_anew_while_being_judged_is_not_taken_over(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow contender: between its judgement and its own claim, two others come and go."""
    path = Path(local.uri) / "claims" / "k0.0"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"owner": f"{this_process().machine}.{os.getpid()}.1"}))
    judge, pause = claims._is_stale, ExitStack()

    def slow_judge(claim: claims.ClaimFile, system: System) -> bool:
        verdict = judge(claim, system)
        monkeypatch.setattr(claims, "_is_stale", judge)
        with local.claim("k0") as held:
            assert held, "a quicker contender takes the stale claim over, works, and releases it"
        assert pause.enter_context(local.claim("k0")), "a third takes the key anew"
        return verdict

    monkeypatch.setattr(claims, "_is_stale", slow_judge)
    with pause, local.claim("k0") as held:
        assert not held
    assert not any(path.parent.iterdir())


def test_never_two_hold_a_key_while_holders_come_go_and_die(tmp_path: Path) -> None:
    processes = [start(HOLD_AND_DIE, tmp_path / "claims", tmp_path / "inside") for _ in range(3)]
    for process in processes:
        ready(process)
    for process in processes:
        send(process, str(time.time() + 1))
    for process in processes:
        assert process.stdout is not None
        assert process.wait(60) == 0
        assert int(process.stdout.read()) > 0


def test_the_claim_of_a_killed_process_is_free_at_once_even_before_it_is_reaped(
    local: Store,
) -> None:
    process = start(TAKE_OVER, local.uri, 1)
    ready(process)
    send(process, "0")
    assert process.stdout is not None
    assert process.stdout.readline() == "k0\n"
    with local.claim("k0") as held:
        assert not held
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, still a zombie
    with local.claim("k0") as held:
        assert held
    process.wait()


@pytest.mark.parametrize(
    ("text", "age_seconds", "free"),
    [
        ('{"owner": "0123456789ab.77.5"}', 0, False),
        ('{"owner": "0123456789ab.77.5"}', 30, False),
        ('{"owner": "0123456789ab.77.5"}', 90, True),
        ("", 0, False),
        ("", 90, True),
        ("{}", 90, True),
    ],
)
def test_a_claim_from_another_machine_lives_as_long_as_its_heartbeat(
    local: Store, text: str, age_seconds: float, free: bool
) -> None:
    path = Path(local.uri) / "claims" / "k0.3"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    when = time.time() - age_seconds
    os.utime(path, (when, when))
    with local.claim("k0") as held:
        assert held == free
    assert path.exists() != free


def test_a_claim_of_a_process_id_that_was_given_to_another_is_free(local: Store) -> None:
    path = Path(local.uri) / "claims" / "k0.0"
    path.parent.mkdir(parents=True)
    me = this_process()
    for owner, free in ((me.token, False), (f"{me.machine}.{me.pid}.{me.started - 1}", True)):
        path.write_text(json.dumps({"owner": owner}))
        with local.claim("k0") as held:
            assert held == free


def test_a_live_process_of_this_machine_keeps_its_claim_however_long_it_slept(
    local: Store,
) -> None:
    with local.claim("k0") as held:
        assert held
        (path,) = (Path(local.uri) / "claims").iterdir()
        os.utime(path, (0, 0))
        with local.claim("k0") as again:
            assert not again


def test_all_claims_of_a_process_beat_while_they_are_held(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(system, "HEARTBEAT", heartbeat.Heartbeat())  # the other sleeps for seconds
    with ExitStack() as stack:
        assert all(stack.enter_context(local.claim(f"k{n}")) for n in range(20))
        paths = list((Path(local.uri) / "claims").iterdir())
        for path in paths:
            os.utime(path, (0, 0))
        deadline = time.time() + 60
        while any(path.stat().st_mtime == 0 for path in paths):
            assert time.time() < deadline
            time.sleep(0.01)
    assert not list((Path(local.uri) / "claims").iterdir())


def test_a_stale_claim_on_an_object_store_is_taken_over_and_cleared(tmp_path: Path) -> None:
    disk = fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("file", auto_mkdir=True)))
    backend = ObjectStoreBackend(disk, str(tmp_path / "bucket"), cache=tmp_path / "cache")
    store = Store(backend)
    folder = tmp_path / "bucket" / "claims"
    folder.mkdir(parents=True)
    old = folder / "00000000000000000001-aa-any"
    for beat, free in ((time.time(), False), (time.time() - 600, True)):
        claim = {"owner": "0123456789ab.77.5", "beat": beat, "keys": ["k0", "k1"]}
        old.write_text(json.dumps(claim))
        with store.claim("k0") as held:
            assert held == free
    assert not list(folder.iterdir())
