"""The Ray that a study runs on: the cluster at ``RAY_ADDRESS``, else a Ray started here.

A Ray that was started here is shut down with the session; a cluster that was joined keeps running.
Without ``RAY_ADDRESS`` a new Ray is started even where another one runs on this machine: a study
must not join somebody else's cluster by accident. Nothing is written to standard output, which
belongs to the command.
"""

import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray

from w2s_ray.cluster.environment import ADDRESS, SESSION, set_defaults
from w2s_ray.cluster.ray_internals import (
    dashboard_address,
    local_rays,
    logs_folder,
    messages_to_log,
    token_is_asked_for,
    without_sigterm_handler,
)
from w2s_ray.ending.signals import kept
from w2s_ray.errors import InputError, SystemFault, line_of

CONNECT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Session:
    """A connection to Ray.

    Attributes:
        dashboard_url: URL of Ray's dashboard; None where there is none.
        others: addresses of other Rays on this machine, beside one that was started here.
    """

    dashboard_url: str | None
    others: tuple[str, ...] = ()

    @property
    def dashboard_line(self) -> str:
        """Where the dashboard is, and how to log in."""
        if self.dashboard_url is None:
            return "Ray dashboard: none (this Ray was started without it)"
        login = f"; it asks for a token, which `{_ray_command()} get-auth-token` prints"
        return f"Ray dashboard: {self.dashboard_url}" + login * token_is_asked_for()

    @property
    def note(self) -> str | None:
        """That another Ray runs on this machine, which shares its CPUs; None if none does."""
        if not self.others:
            return None
        return (
            f"note: another Ray runs on this machine ({', '.join(self.others)}), and this study "
            f"started its own beside it; to run there: {ADDRESS}=auto"
        )

    @property
    def logs_folder(self) -> Path | None:
        """The folder of this machine whose files the dashboard shows as logs."""
        return logs_folder()


@contextmanager
def connect(num_cpus: int | None = None) -> Iterator[Session]:
    """Connects to Ray for as long as the context lasts.

    A Ray to which this process is already connected is used as it is, and stays connected.

    Args:
        num_cpus: CPUs to declare when Ray is started here; default: those of the machine.

    Raises:
        InputError: no cluster answers at ``RAY_ADDRESS``, or it is a Ray Client address.
    """
    if ray.is_initialized():
        yield Session(_url(dashboard_address()))
        return
    set_defaults(SESSION)
    address = os.environ.get(ADDRESS)
    with messages_to_log():
        try:
            others = () if address else tuple(local_rays())
            with kept(), without_sigterm_handler():
                dashboard = _join(address) if address else _start(num_cpus)
            yield Session(_url(dashboard), others)
        finally:
            ray.shutdown()


def _start(num_cpus: int | None) -> str | None:
    try:
        with _errors_held_back():
            context = ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except Exception as error:  # Ray raises no type of its own, such as for a machine too busy
        raise SystemFault(
            f"Ray did not start on this machine: {line_of(error)}; --local runs without it"
        ) from error
    url: str | None = context.dashboard_url
    return url


@contextmanager
def _errors_held_back() -> Iterator[None]:
    """Shows what goes to standard error only if the block fails, also what C++ writes there.

    On a SIGTERM before ``kept`` has restored our handler, Ray prints a stack and then calls it.
    """
    sys.stderr.flush()
    own = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(own, 2)
            held_back.seek(0)
            sys.stderr.write(held_back.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(own, 2)
            os.close(own)


def _join(address: str) -> str | None:
    if address.startswith("ray://"):
        raise InputError(
            f"{ADDRESS}: {address!r} is a Ray Client address; expected auto or HOST:PORT (run "
            "the command on a machine of the cluster, or by `ray job submit`)"
        )
    try:
        if ":" in address:  # Ray itself would try for minutes, then end this process
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT_SECONDS).close()
        context = ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        raise InputError(
            f"{ADDRESS}: no Ray cluster could be joined at {address!r}: {error} "
            "(a cluster with token authentication needs RAY_AUTH_MODE=token and its token)"
        ) from error
    url: str | None = context.dashboard_url
    return url


def _ray_command() -> str:
    """``ray`` as it can be typed here: that of this environment, which may not be active."""
    own = Path(sys.executable).with_name("ray")
    found = shutil.which("ray")
    if not own.exists() or (found is not None and os.path.samefile(found, own)):
        return "ray"
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)


def _url(address: str | None) -> str | None:
    return f"http://{address}" if address else None
