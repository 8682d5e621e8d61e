"""The line of ``--version``: what a report of a problem should begin with."""

import platform
from importlib.metadata import PackageNotFoundError, version

from w2s_ray import __version__
from w2s_ray.store.provenance import code_digest

LIBRARIES = ("torch", "ray", "transformers", "deepspeed")


def version_line() -> str:
    """``w2s_ray 0.1.0 (code 0a1b…, Python 3.12.1, torch 2.9.0, …)``."""
    found = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    return (
        f"w2s_ray {__version__} (code {code_digest()[:12]}, Python {platform.python_version()}, "
        f"{found})"
    )


def _version(name: str) -> str:
    """The installed version, without importing the library."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
