"""Every private name of Ray that w2s_ray uses, so that an upgrade of Ray has one file to check.

Each was checked against Ray 2.60.0. ``tests/cluster/test_ray_internals.py`` asserts that they exist
and that Ray's public names stand for Train V2's objects.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray._private import (
    services,  # which Rays run on this machine
    utils,  # its handler of SIGTERM
    worker,  # of the driver: the dashboard's address, messages it prints
)
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.state import state  # of the cluster: draining nodes, the autoscaler's limits
from ray._raylet import setproctitle  # type: ignore[attr-defined]

os.environ["RAY_TRAIN_V2_ENABLED"] = "1"  # before the import: V1 has no elastic groups

if TYPE_CHECKING:
    # Ray 2.60.0 binds these public names of `ray.train` twice: to Train V1's classes, then, unless
    # V2 is switched off, to V2's. A type checker sees only V1's, which lack elastic `num_workers`,
    # `max_preemption_failures` and `return_value`. So types come from V2's own modules, while the
    # public names are used at run time.
    from ray.train.torch.config import _TorchBackend as TorchBackend
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.result import Result
    from ray.train.v2.torch.torch_trainer import TorchTrainer
else:
    from ray.train import FailureConfig, Result, RunConfig, ScalingConfig

__all__ = [
    "FailureConfig",
    "Result",
    "RunConfig",
    "ScalingConfig",
    "TorchBackend",
    "TorchTrainer",
    "autoscaler_config",
    "dashboard_address",
    "draining_nodes",
    "has_actor",
    "kill_actors_after",
    "local_rays",
    "logs_folder",
    "messages_to_log",
    "name_process",
    "token_is_asked_for",
    "without_sigterm_handler",
]


def __getattr__(name: str) -> Any:
    """``TorchTrainer`` and ``TorchBackend`` on first use: they load torch, which the driver avoids.

    ``TorchBackend`` is what ``TorchConfig`` joins workers with, subclassed in ``launch`` to choose
    between NCCL and gloo when the workers run. Ray 2.60.0 has no public name for it.
    """
    if name == "TorchTrainer":
        from ray.train.torch import TorchTrainer

        return TorchTrainer
    if name == "TorchBackend":
        from ray.train.torch.config import _TorchBackend

        return _TorchBackend
    raise AttributeError(name)


def draining_nodes() -> dict[str, int]:
    """Ids of nodes that are being drained, with the deadline in ms since the epoch (0: none).

    Ray 2.60.0: Ray Train and Ray Data read them in the same way; there is no public one.
    """
    nodes: dict[str, int] = state.get_draining_nodes()
    return nodes


def autoscaler_config() -> Any:
    """The node groups that KubeRay or a hosted autoscaler reported; None if neither did.

    Ray 2.60.0: a protobuf `ClusterConfig`, whose `node_group_configs` have `resources` and
    `max_count` (-1: no limit).
    """
    return state.get_cluster_config()


def dashboard_address() -> str | None:
    """Host and port of the dashboard of the Ray to which this process is connected.

    Ray 2.60.0: `ray.init` returns it publicly, but only to the caller that connected.
    """
    address: str | None = worker.get_dashboard_url()  # type: ignore[no-untyped-call]
    return address


def token_is_asked_for() -> bool:
    """Whether the dashboard of the connected Ray asks for a token.

    Ray 2.60.0: on by default for a Ray that is started here; `ray get-auth-token` prints the token.
    """
    return bool(is_token_auth_enabled())


def local_rays() -> list[str]:
    """Addresses of the Rays that run on this machine, whoever started them, by its processes.

    Ray 2.60.0: ``RAY_ADDRESS=auto`` finds one in this way; an answer is remembered until cleared.
    """
    services.find_gcs_addresses.cache_clear()  # type: ignore[attr-defined]
    return sorted(services.find_gcs_addresses())  # type: ignore[no-untyped-call]


def kill_actors_after(seconds: float, tune_controller: Any) -> None:
    """How long Tune waits for actors to end, at the end of its run, before it kills them.

    Ray 2.60.0: ten seconds, without an option. Schedulers are handed a wrapper of the controller.
    """
    tune_controller._tune_controller._actor_force_cleanup_timeout = seconds


def has_actor(trial: Any, tune_controller: Any) -> bool:
    """Whether Tune has an actor for the trial, which runs or is being started.

    Ray 2.60.0 has no public name for it. Schedulers are handed a wrapper of the controller.
    """
    return trial in tune_controller._tune_controller._trial_to_actor


def logs_folder() -> Path | None:
    """The folder of this machine whose files the dashboard shows as logs; None: there is none.

    Ray 2.60.0 has no public name for it.
    """
    node = worker._global_node
    return None if node is None else Path(node.get_logs_dir_path())


def name_process(name: str) -> None:
    """Shows ``name`` as the command of this process, in `top` and in the dashboard's Cluster page.

    Ray 2.60.0 sets the names of its processes by this function, at the beginning and the end of
    each call.
    """
    setproctitle(f"ray::{name}")


@contextmanager
def messages_to_log() -> Iterator[None]:
    """What Ray's processes print goes to the logger ``w2s_ray.ray``, not to standard output.

    Ray 2.60.0: ``ray.init(log_to_driver=False)`` does not stop a thread of the driver that prints
    errors and warnings of the cluster by this function.
    """
    printed = worker.print_to_stdstream
    worker.print_to_stdstream = _log
    try:
        yield
    finally:
        worker.print_to_stdstream = printed


@contextmanager
def without_sigterm_handler() -> Iterator[None]:
    """``ray.init`` sets no Python handler of SIGTERM, which would exit with code 1 and no word.

    Ray 2.60.0 has no option for it. Its processes are stopped by ``ray.shutdown`` in any case.
    """
    own = utils.set_sigterm_handler
    utils.set_sigterm_handler = _no_handler
    try:
        yield
    finally:
        utils.set_sigterm_handler = own


def _no_handler(handler: object) -> None:
    """Sets none."""


def _log(data: dict[str, Any], ignore_prefix: bool) -> None:
    logging.getLogger("w2s_ray.ray").info("%s", "\n".join(data["lines"]))
