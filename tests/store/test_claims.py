"""Claims on a file system: who holds a key, when a claim is stale, and what keeps it alive.

``test_processes.py`` has the same promises among real processes.
"""

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from w2s_ray.store import claims, heartbeat
from w2s_ray.store.claims import GAP, STALE_SECONDS, is_held, local_claim, local_claims
from w2s_ray.store.owners import Owner, this_process
from w2s_ray.store.system import System

DEAD = replace(this_process(), started=this_process().started + 1)  # a process id used again
ELSEWHERE = Owner("0123456789ab", 1, 1)


def leave(folder: Path, key: str, owner: Owner, *, number: int = 0, age: float = 0.0) -> Path:
    """The claim of another process, as old as it would be ``age`` seconds after its last beat."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{key}.{number}"
    path.write_text(json.dumps({"owner": owner.token, "beat": time.time() - age, "id": "x"}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_key_is_held_by_one_and_free_afterwards(tmp_path: Path) -> None:
    with local_claim(tmp_path, "k") as first:
        assert first and is_held(tmp_path, "k") and not is_held(tmp_path, "other")
        with local_claim(tmp_path, "k") as second:
            assert not second
        assert is_held(tmp_path, "k")
    assert not is_held(tmp_path, "k") and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("owner", "age"), [(DEAD, 0.0), (ELSEWHERE, STALE_SECONDS + 5)])
def test_a_stale_claim_is_taken_over_by_one_and_removed_with_its_own(
    tmp_path: Path, owner: Owner, age: float
) -> None:
    left = leave(tmp_path, "k", owner, age=age)
    assert not is_held(tmp_path, "k")
    with local_claims(tmp_path, ["k"]) as held:
        assert held == {"k"} and is_held(tmp_path, "k")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["k.0", "k.1"]
        assert left.exists()  # nothing that another process may hold is removed before the end
        with local_claim(tmp_path, "k") as another:
            assert not another
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("age", [0.0, STALE_SECONDS - 20])
def test_a_claim_of_another_machine_is_live_while_its_heart_beats(
    tmp_path: Path, age: float
) -> None:
    path = leave(tmp_path, "k", ELSEWHERE, age=age)
    assert is_held(tmp_path, "k")
    with local_claim(tmp_path, "k") as held:
        assert not held
    assert path.exists()


def test_a_dead_process_of_this_machine_is_not_waited_for_and_a_live_one_is(
    tmp_path: Path,
) -> None:
    leave(tmp_path, "dead", DEAD)
    leave(tmp_path, "live", this_process(), age=10 * STALE_SECONDS)  # asleep, but there
    with local_claims(tmp_path, ["dead", "live"]) as held:
        assert held == {"dead"}


def test_the_highest_number_holds_the_key_though_lower_ones_are_missing(tmp_path: Path) -> None:
    leave(tmp_path, "k", this_process(), number=GAP - 1)
    with local_claim(tmp_path, "k") as held:
        assert not held
    leave(tmp_path, "k", DEAD, number=GAP - 1)
    leave(tmp_path, "k", DEAD, number=GAP)
    with local_claim(tmp_path, "k") as held:
        assert held and (tmp_path / f"k.{GAP + 1}").exists()
    assert not list(tmp_path.iterdir())


def test_a_holder_that_was_taken_for_dead_and_lives_is_waited_for(tmp_path: Path) -> None:
    awake = leave(tmp_path, "k", this_process())
    overruled_by = leave(tmp_path, "k", DEAD, number=1)
    assert is_held(tmp_path, "k")
    with local_claim(tmp_path, "k") as held:
        assert not held
    assert awake.exists() and overruled_by.exists()


def test_a_claim_without_its_text_is_live_until_it_is_old(tmp_path: Path) -> None:
    """Its writer may be between creating the file and writing into it."""
    path = tmp_path / "k.0"
    path.touch()
    assert is_held(tmp_path, "k")
    os.utime(path, (time.time() - STALE_SECONDS - 5,) * 2)
    assert not is_held(tmp_path, "k")


def test_a_stale_claim_that_was_released_and_taken_anew_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the judgement and the takeover another process may have claimed the key."""
    left, judge = leave(tmp_path, "k", DEAD), claims._is_stale

    def judged_then_changed(claim: claims.ClaimFile, system: System) -> bool:
        stale = judge(claim, system)
        if Path(claim.path) == left and stale:
            leave(tmp_path, "k", this_process())
        return stale

    monkeypatch.setattr(claims, "_is_stale", judged_then_changed)
    with local_claim(tmp_path, "k") as held:
        assert not held
    assert [path.name for path in tmp_path.iterdir()] == ["k.0"]


def test_a_heart_beats_from_start_to_stop_and_its_thread_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.01)
    heart, other = heartbeat.Heartbeat(), threading.Event()
    beats = {"a": threading.Semaphore(0), "broken": threading.Semaphore(0)}

    def broken() -> None:
        beats["broken"].release()
        raise OSError("the file system is away")

    heart.start("broken", broken)
    heart.start("a", beats["a"].release)
    thread = heart._thread
    assert thread is not None and thread.daemon  # a process that ends does not wait for it
    for _ in range(3):  # one that fails stops neither itself nor the other
        assert beats["a"].acquire(timeout=30) and beats["broken"].acquire(timeout=30)
    heart.stop("a")
    heart.stop("broken")
    heart.stop("nobody")
    thread.join(timeout=30)
    assert not thread.is_alive()
    heart.start("again", other.set)
    assert other.wait(timeout=30)
    heart.stop("again")
