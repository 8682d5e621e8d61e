"""A job that is interrupted, runs out of memory or out of disk space loses nothing but time."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.testing.jobs import job, rows
from tests.testing.specs import REPOSITORY, TINY_MODEL, tiny_config
from w2s_ray.capacity.execution import Execution
from w2s_ray.errors import InputError
from w2s_ray.models.inference import sweep
from w2s_ray.objectives.objective import Objective
from w2s_ray.steps.context import fit_in_process
from w2s_ray.store.artifacts import Store
from w2s_ray.store.checkpoints import KEPT, Checkpoints
from w2s_ray.training.early_end import ask
from w2s_ray.training.fit import fit
from w2s_ray.training.oom_retry import MAX_OOM_RETRIES


class Broken(Objective):
    """An objective that calls ``event`` at its n-th batch, from 1."""

    def at(self, number, event):
        object.__setattr__(self, "plan", (number, event))
        object.__setattr__(self, "calls", [])
        return self

    def __call__(self, logits, *arguments, **options):
        self.calls.append(len(logits))
        number, event = self.plan
        if len(self.calls) == number:
            event()
        return super().__call__(logits, *arguments, **options)


def broken(number, event):
    return Broken(*astuple(job().objective)).at(number, event)


def interrupt():
    raise KeyboardInterrupt


def out(path):
    path.mkdir(parents=True)
    return path


def files(folder):
    """Everything a job leaves, as bytes and numbers."""
    return (
        np.array(pq.read_table(folder / "curve.parquet")["loss"]),
        (folder / "test.parquet").read_bytes(),
        (folder / "model.safetensors").read_bytes(),
    )


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(Store.open(tmp_path / "store"), "abc")


def kept(checkpoints, every=2, **changes):
    """A job of 8 updates with a checkpoint every 2."""
    return job(checkpoints=checkpoints, execution=Execution(checkpoint_steps=every), **changes)


@pytest.mark.parametrize("per_row", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_interrupted_job_ends_bit_for_bit_as_if_it_had_not_been(
    tmp_path, checkpoints, per_row, precision
):
    changes = {"per_row": per_row, "precision": precision}
    fit(job(**changes), out(tmp_path / "straight"))
    with pytest.raises(KeyboardInterrupt):
        fit(kept(checkpoints, objective=broken(6, interrupt), **changes), out(tmp_path / "cut"))
    metrics = fit(kept(checkpoints, **changes), out(tmp_path / "on"))
    assert metrics["checkpoints"]["resumed_at"] == 4
    straight, on = files(tmp_path / "straight"), files(tmp_path / "on")
    np.testing.assert_array_equal(straight[0], on[0])
    assert straight[1:] == on[1:]


def test_a_job_that_is_asked_to_end_saves_the_update_that_it_is_in(tmp_path, checkpoints):
    assert not ask()  # nothing trains
    fit(job(), out(tmp_path / "straight"))
    with pytest.raises(KeyboardInterrupt):
        fit(kept(checkpoints, every=None, objective=broken(5, ask)), out(tmp_path / "cut"))
    assert checkpoints.latest().update == 5
    assert not ask()
    metrics = fit(kept(checkpoints, every=None), out(tmp_path / "on"))
    assert metrics["checkpoints"]["resumed_at"] == 5
    straight, on = files(tmp_path / "straight"), files(tmp_path / "on")
    np.testing.assert_array_equal(straight[0], on[0])
    assert straight[1:] == on[1:]


def test_a_job_without_checkpoints_is_not_asked_to_end(tmp_path):
    answers = []
    fit(job(objective=broken(5, lambda: answers.append(ask()))), out(tmp_path / "out"))
    assert answers == [False]


@pytest.mark.parametrize(("fixed", "resumed_with"), [(None, 2), ("1", 1)])
def test_a_job_resumes_with_as_many_threads_unless_the_user_fixes_them(
    tmp_path, checkpoints, monkeypatch, fixed, resumed_with
):
    """The gradient of a LayerNorm is summed thread by thread."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    if fixed is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", fixed)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(KeyboardInterrupt):
            fit(kept(checkpoints, objective=broken(6, interrupt)), out(tmp_path / "cut"))
        torch.set_num_threads(1)
        fit(kept(checkpoints), out(tmp_path / "on"))
        assert torch.get_num_threads() == resumed_with
    finally:
        torch.set_num_threads(before)


def test_a_truncated_checkpoint_is_skipped_for_the_one_before(tmp_path, checkpoints):
    fit(kept(checkpoints), out(tmp_path / "run"))
    assert checkpoints.latest().update == 8
    folder = Path(checkpoints.store.uri) / checkpoints.folder
    (newest,) = folder.glob("000000008-rank*")
    os.truncate(newest, newest.stat().st_size - 1)
    assert checkpoints.latest().update == 6
    (folder / "000000006.json").write_text("{")
    assert checkpoints.latest() is None


def test_a_damaged_checkpoint_is_passed_over_and_told(tmp_path, checkpoints):
    """One bit of a moment has flipped: the run ends as one that was not interrupted."""
    fit(job(), out(tmp_path / "straight"))
    with pytest.raises(KeyboardInterrupt):
        fit(kept(checkpoints, objective=broken(7, interrupt)), out(tmp_path / "cut"))
    (newest,) = (Path(checkpoints.store.uri) / checkpoints.folder).glob("000000006-rank*")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match=r"000000006\.json: passed over: a file is damaged"):
        metrics = fit(kept(checkpoints), out(tmp_path / "on"))
    entry = metrics["checkpoints"]
    assert (entry["resumed_at"], len(entry["failures"])) == (4, 1)
    assert files(tmp_path / "straight")[1:] == files(tmp_path / "on")[1:]


def test_skipped_checkpoints_do_not_crowd_out_new_ones(tmp_path, checkpoints):
    """Damaged checkpoints have higher numbers than the new ones; other files stay untouched."""
    fit(kept(checkpoints), out(tmp_path / "run"))
    folder = Path(checkpoints.store.uri) / checkpoints.folder
    for file in folder.glob("*-rank*"):
        os.truncate(file, 9)
    (folder / "notes.json").write_text("{}")
    assert checkpoints.latest() is None
    with pytest.raises(KeyboardInterrupt):
        fit(kept(checkpoints, objective=broken(5, interrupt)), out(tmp_path / "again"))
    assert checkpoints.latest().update == 4
    assert {name[:9] for name in os.listdir(folder)} == {"000000002", "000000004", "notes.jso"}


def test_the_last_two_are_kept(tmp_path, checkpoints):
    fit(kept(checkpoints, every=1), out(tmp_path / "run"))
    names = sorted(os.listdir(Path(checkpoints.store.uri) / checkpoints.folder))
    assert [name for name in names if name.endswith(".json")] == [
        "000000007.json",
        "000000008.json",
    ]
    assert len(names) == 2 * KEPT  # of each: what it says, and the file of the only rank


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"rows": rows(27, seed=2)}, "data"), ({"seed": 4}, "data"), ({"trainable": "lora"}, "model")],
)
def test_a_checkpoint_of_another_job_is_refused_in_one_line(tmp_path, checkpoints, changes, what):
    fit(kept(checkpoints), out(tmp_path / "run"))
    with pytest.raises(
        InputError, match=f"^checkpoint .*000000008.json: it was written for another {what}; "
    ):
        fit(replace(kept(checkpoints), **changes), out(tmp_path / "other"))
    assert checkpoints.latest().update == 8


def test_a_full_disk_costs_a_checkpoint_and_nothing_else(tmp_path, checkpoints):
    """The file system refuses files of more than 10 kB from the fifth batch on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))

    fit(job(), out(tmp_path / "straight"))
    full = kept(checkpoints, objective=broken(5, fill))
    try:
        with (
            pytest.warns(UserWarning, match="update 6: no checkpoint: .*File too large"),
            pytest.raises(OSError, match="File too large"),  # its results do not fit either
        ):
            fit(full, out(tmp_path / "full"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints.latest().update == 4
    metrics = fit(kept(checkpoints), out(tmp_path / "on"))
    entry = metrics["checkpoints"]
    assert (entry["resumed_at"], entry["saved"], entry["failures"]) == (4, 2, [])
    assert 0 < entry["seconds_before"] < metrics["train_seconds"]
    assert files(tmp_path / "straight")[1:] == files(tmp_path / "on")[1:]


class Hungry(Objective):
    """A micro-batch of more than ``most`` rows does not fit in memory."""

    most = 3

    def __call__(self, logits, *arguments, **options):
        if len(logits) > self.most:
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")
        return super().__call__(logits, *arguments, **options)


def test_out_of_memory_halves_the_micro_batch_and_not_the_batch(tmp_path, checkpoints):
    straight = fit(job(), out(tmp_path / "straight"))
    hungry = Hungry(*astuple(job().objective))
    execution = Execution(checkpoint_steps=2, micro_batch_tokens=1200)
    given = job(checkpoints=checkpoints, objective=hungry, execution=execution)
    metrics = fit_in_process(given, out(tmp_path / "halved"), lambda numbers: None)
    assert 1 <= metrics["out_of_memory"] <= MAX_OOM_RETRIES
    assert metrics["micro_batch_tokens"] == 1200 >> metrics["out_of_memory"]
    assert metrics["steps"] == straight["steps"]
    np.testing.assert_allclose(
        files(tmp_path / "halved")[0], files(tmp_path / "straight")[0], atol=1e-5
    )


def test_scoring_that_does_not_fit_is_retried_smaller_without_training_again(
    tmp_path, checkpoints, monkeypatch
):
    budgets = []

    def hungry(forward, tokens, token_budget, **options):
        budgets.append(token_budget)
        if len(budgets) < 3:
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")
        return sweep(forward, tokens, token_budget, **options)

    monkeypatch.setattr("w2s_ray.training.fit.sweep", hungry)
    updates = []
    metrics = fit_in_process(kept(checkpoints, every=3), out(tmp_path / "out"), updates.append)
    assert budgets == [2048, 1024, 512]
    assert [numbers["step"] for numbers in updates] == [*range(1, 9)]
    assert metrics["out_of_memory"] == 2


def test_what_never_fits_fails_with_the_message_of_the_library(tmp_path):
    hungry = Hungry(*astuple(job().objective))
    object.__setattr__(hungry, "most", 0)
    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 2\.00 GiB"):
        fit_in_process(job(objective=hungry), out(tmp_path / "out"), lambda numbers: None)


@pytest.mark.groups
def test_offload_in_one_process_gives_the_numbers_of_plain_torch_and_leaves_nothing(tmp_path):
    fit(job(), out(tmp_path / "plain"))
    execution = {"zero_stage": 3, "offload": "parameters"}
    script = f"""
from pathlib import Path
from tests.testing.jobs import job
from w2s_ray.capacity.execution import Execution
from w2s_ray.steps.context import fit_in_process
import gc, torch
linear = torch.nn.functional.linear
def live():
    gc.collect()
    return sum(o.nbytes for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter))
sizes = []
for _ in range(3):
    execution = Execution(**{execution})
    fit_in_process(job(execution=execution), Path({str(out(tmp_path / "offloaded"))!r}), print)
    sizes.append(live())
assert torch.nn.functional.linear is linear
assert sizes[2] <= 1.05 * sizes[0], sizes
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    environment.pop("RANK", None)
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=200)
    plain, offloaded = files(tmp_path / "plain"), files(tmp_path / "offloaded")
    np.testing.assert_allclose(plain[0], offloaded[0], atol=1e-5)
    ours = load_file(tmp_path / "offloaded/model.safetensors")
    for name, tensor in load_file(tmp_path / "plain/model.safetensors").items():
        torch.testing.assert_close(tensor, ours[name], atol=1e-5, rtol=0)


def test_activation_checkpointing_changes_nothing_but_time(tmp_path):
    fit(job(), out(tmp_path / "plain"))
    fit(job(execution=Execution(activation_checkpointing=True)), out(tmp_path / "again"))
    assert files(tmp_path / "plain")[1:] == files(tmp_path / "again")[1:]


@pytest.mark.long
def test_a_killed_study_resumes_inside_the_step(write_spec, tmp_path, forks):
    """``kill -9`` while a student is trained; the same command ends with the same results."""
    spec = write_spec(
        models={
            name: {**TINY_MODEL, "config": tiny_config(32)} | {"init_seed": seed}
            for seed, name in enumerate(("small", "large"))
        },
        grid={"pair": [["small", "large"]], "trainable": ["full"], "seed": [0]},
        training__epochs=12,
        execution={"checkpoint_steps": 3},
    )

    def command(store):
        return (spec, "--local", "--json", "--store", tmp_path / store)

    assert forks.run(*command("straight"), folder=tmp_path).code == 0
    process = forks.begin(*command("killed"), folder=tmp_path)
    folder, deadline = tmp_path / "killed/checkpoints", time.monotonic() + 200
    while time.monotonic() < deadline and len(list(folder.glob("*/*.json"))) < 2:
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    assert forks.wait(process) == -signal.SIGKILL, "it ended before it could be killed"
    assert forks.run(*command("killed"), folder=tmp_path).code == 0
    tables = [
        pq.read_table(tmp_path / store / "results/tiny.parquet").to_pylist()
        for store in ("straight", "killed")
    ]
    timed = ("seconds", "tokens_per_second", "peak_memory_bytes", "code_digest", "code_commit")
    for one, other in zip(*tables, strict=True):
        assert {**one, **dict.fromkeys(timed)} == {**other, **dict.fromkeys(timed)}
    resumed = [
        json.loads(path.read_text())["metrics"].get("checkpoints", {}).get("resumed_at", 0)
        for path in (tmp_path / "killed").glob("*/*/record.json")
    ]
    assert max(resumed) >= 3
    assert not list(folder.glob("*/*"))
