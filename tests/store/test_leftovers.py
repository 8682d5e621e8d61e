"""What killed processes leave goes; what a living one may use stays."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import Checkpoints
from w2s_ray.store.claims import STALE_SECONDS
from w2s_ray.store.identity import Identity
from w2s_ray.store.leftovers import remove_leftovers
from w2s_ray.store.owners import Owner, this_process
from w2s_ray.store.parts import Parts

DEAD = replace(this_process(), started=this_process().started + 1)  # a process id used again
ELSEWHERE = Owner("0123456789ab", 1, 1)


def checkpoint(store: Store, key: str) -> Checkpoints:
    kept = Checkpoints(store, key)
    with kept.writing(10, "weights") as path:
        path.write_bytes(b"w" * 100)
    kept.complete(10, {}, {"weights": (100, "")})
    return kept


def finish(store: Store, key: str) -> None:
    with store.draft(Identity("student", key, "hh", 1, {}, {}), {}):
        pass


def test_work_of_finished_steps_goes_and_that_of_others_stays(store: Store) -> None:
    finish(store, "done")
    for key in ("done", "begun"):
        checkpoint(store, key)
        Parts(store, key).keep("part", lambda: np.zeros(3))
    remove_leftovers(store)
    assert store.listing("checkpoints") == ["begun"] and store.listing("parts") == ["begun"]
    assert Checkpoints(store, "begun").latest() is not None and not store.claimed()


def test_work_of_a_finished_step_stays_while_another_process_holds_it(store: Store) -> None:
    finish(store, "done")
    checkpoint(store, "done")
    with store.claim("done") as held:
        assert held
        remove_leftovers(store)
        assert store.listing("checkpoints") == ["done"] and store.claimed() == {"done"}
    remove_leftovers(store)
    assert store.listing("checkpoints") == [] and not store.claimed()


@pytest.mark.parametrize(
    ("owner", "age", "goes"),
    [
        (DEAD, 0.0, True),
        (ELSEWHERE, STALE_SECONDS + 5, True),
        (ELSEWHERE, 0.0, False),
        (this_process(), 10 * STALE_SECONDS, False),
    ],
)
def test_claims_of_the_dead_go(local: Store, owner: Owner, age: float, goes: bool) -> None:
    folder = Path(local.uri) / "claims"
    folder.mkdir(parents=True)
    for number in (0, 1):  # the second took over from the first, and died as well
        path = folder / f"k0.{number}"
        path.write_text(json.dumps({"owner": owner.token, "beat": time.time() - age}))
        os.utime(path, (time.time() - age,) * 2)
    (folder / "a file of somebody").touch()
    remove_leftovers(local)
    assert ("k0" not in local.claimed()) == goes
    assert (folder / "a file of somebody").exists()


@pytest.mark.parametrize(("age", "goes"), [(STALE_SECONDS - 20, False), (STALE_SECONDS + 5, True)])
def test_a_claim_that_was_never_signed_goes_after_its_lease(
    local: Store, age: float, goes: bool
) -> None:
    """Its writer was killed between making and writing it, or is about to write."""
    finish(local, "done")
    path = Path(local.uri) / "claims/done.0"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    remove_leftovers(local)
    assert local.claimed() == (set() if goes else {"done"})


def test_hidden_folders_of_the_dead_go_wherever_they_are(local: Store) -> None:
    root = Path(local.uri)
    mine = checkpoint(local, "begun")
    for place in ("", "student", "checkpoints", "checkpoints/begun", "reports/hh", "results"):
        for owner in (DEAD, this_process()):
            (root / place / f".tmp-x-{owner.token}-00").mkdir(parents=True)
    (root / "checkpoints" / f".tmp-k0-{DEAD.token}-01").mkdir()
    (root / "checkpoints" / f".tmp-k0-{DEAD.token}-01" / "000000010-weights").write_bytes(b"w")
    remove_leftovers(local)
    left = {path.parent.relative_to(root).as_posix() for path in root.rglob(".tmp-*")}
    assert left == {".", "student", "checkpoints", "checkpoints/begun", "reports/hh", "results"}
    assert not list(root.rglob(f".tmp-*{DEAD.token}*")) and mine.latest() is not None


def test_a_store_that_cannot_be_written_is_left_as_it_is(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(local, "done")
    checkpoint(local, "done")

    def refuse(names: object) -> object:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(local.backend, "claims", refuse)
    remove_leftovers(local)
    assert local.listing("checkpoints") == ["done"]
