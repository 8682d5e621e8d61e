"""The Ray that a study runs on: the cluster at ``RAY_ADDRESS``, else one started here.

A Ray that was started here ends with the session; one that was found is only left. Without
``RAY_ADDRESS`` a new Ray is started even where another one runs on this machine: a study must not
join somebody else's cluster by accident. Nothing is written to standard output, which belongs to
the command.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import worker

from w2s_ray.errors import InputError

# Set before Ray starts, so that its processes inherit them; a user's own values win.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else every process without a GPU warns
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a finished worker group is noticed
    "TOKENIZERS_PARALLELISM": "false",
}
PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class Session:
    """A connection to Ray.

    Attributes:
        dashboard_url: where to watch; None where Ray has no dashboard.
    """

    dashboard_url: str | None


@contextmanager
def connect(num_cpus: int | None = None) -> Iterator[Session]:
    """Connects to Ray for as long as the context lasts.

    A Ray to which this process is connected already is used as it is, and left so.

    Args:
        num_cpus: CPUs to declare when Ray is started here; default: those of the machine.

    Raises:
        InputError: no cluster answers at ``RAY_ADDRESS``, or it is a Ray Client address.
    """
    if ray.is_initialized():
        yield Session(_url(worker.get_dashboard_url()))  # type: ignore[no-untyped-call]
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS")
    prints = worker.print_to_stdstream
    worker.print_to_stdstream = _log  # Ray's warnings would go to standard output
    try:
        dashboard = _join(address) if address else _start(num_cpus)
        yield Session(_url(dashboard))
    finally:
        ray.shutdown()
        worker.print_to_stdstream = prints


def _start(num_cpus: int | None) -> str | None:
    context = ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    url: str | None = context.dashboard_url
    return url


def _join(address: str) -> str | None:
    if address.startswith("ray://"):
        raise InputError(
            f"RAY_ADDRESS: {address!r} is a Ray Client address; expected auto or HOST:PORT (run "
            "the command on a machine of the cluster, or by `ray job submit`)"
        )
    try:
        if ":" in address:  # Ray itself would try for minutes, then end this process
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), PROBE_SECONDS).close()
        context = ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        raise InputError(
            f"RAY_ADDRESS: no Ray cluster could be joined at {address!r}: {error} "
            "(a cluster with token authentication needs RAY_AUTH_MODE=token and its token)"
        ) from error
    url: str | None = context.dashboard_url
    return url


def _log(data: dict[str, Any], ignore_prefix: bool) -> None:
    logging.getLogger("w2s_ray.ray").info("%s", "\n".join(data["lines"]))


def _url(address: str | None) -> str | None:
    return f"http://{address}" if address else None
