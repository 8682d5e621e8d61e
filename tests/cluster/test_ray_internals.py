"""The private names of Ray that w2s_ray uses exist, and the public ones are Train V2's."""

import logging
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.train.torch
from ray._private import utils, worker
from ray._private.state import state
from ray.train.torch.config import TorchConfig
from ray.train.v2.api import config, exceptions, result
from ray.train.v2.torch import torch_trainer
from ray.tune.execution.tune_controller import TrialRunnerWrapper, TuneController

from w2s_ray.cluster import ray_internals
from w2s_ray.cluster.session import Session

pytestmark = pytest.mark.ray

REPOSITORY = Path(__file__).parents[2]


def test_the_checked_version_is_the_installed_one() -> None:
    assert f"checked against Ray {version('ray')}." in str(ray_internals.__doc__)


def test_public_names_are_those_of_train_v2() -> None:
    assert ray_internals.FailureConfig is config.FailureConfig
    assert ray_internals.RunConfig is config.RunConfig
    assert ray_internals.ScalingConfig is config.ScalingConfig
    assert ray_internals.Result is result.Result
    assert ray_internals.TorchTrainer is torch_trainer.TorchTrainer
    assert ray.train.WorkerGroupError is exceptions.WorkerGroupError


def test_workers_are_joined_by_the_backend_that_is_subclassed() -> None:
    assert ray_internals.TorchBackend is TorchConfig().backend_cls


def test_what_a_connected_process_can_ask(ray_session: Session) -> None:
    assert ray_internals.draining_nodes() == {}
    assert ray_internals.autoscaler_config() == state.get_cluster_config()
    assert ray_session.dashboard_url == f"http://{ray_internals.dashboard_address()}"


def test_messages_of_the_cluster_go_to_the_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    before = worker.print_to_stdstream
    message = {"lines": ["out of disk"], "pid": "raylet", "is_err": False}
    with caplog.at_level(logging.INFO, "w2s_ray.ray"), ray_internals.messages_to_log():
        worker.print_to_stdstream(message, ignore_prefix=False)
    assert caplog.messages == ["out of disk"]
    assert capfd.readouterr().out == ""
    assert worker.print_to_stdstream is before


def test_the_handler_of_sigterm_is_not_set() -> None:
    own, before = utils.set_sigterm_handler, signal.getsignal(signal.SIGTERM)
    with ray_internals.without_sigterm_handler():
        utils.set_sigterm_handler(lambda number, frame: None)
    assert signal.getsignal(signal.SIGTERM) is before
    assert utils.set_sigterm_handler is own


def test_tune_reads_how_long_actors_may_take_to_end() -> None:
    controller = SimpleNamespace(_actor_force_cleanup_timeout=10)
    ray_internals.kill_actors_after(310.0, TrialRunnerWrapper(controller, None))  # type: ignore[arg-type]
    assert controller._actor_force_cleanup_timeout == 310.0
    methods = TuneController.__init__, TuneController._cleanup_stopping_actors
    assert all("_actor_force_cleanup_timeout" in of.__code__.co_names for of in methods)


def test_the_driver_does_not_load_torch() -> None:
    code = "import sys, w2s_ray.cluster.session, w2s_ray.cluster.tune_run; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = run.stdout.split()
    assert "w2s_ray.cluster.ray_internals" in loaded
    assert "torch" not in loaded
