"""The folders that transformers loads from: links to the files that are read, and nothing else.

A loader looks around in the folder it is given: for an adapter, another configuration, code. It
sees here what the key of a step names (``catalog.model_files``), wherever the model comes from: a
folder, an unpacked GGUF file or the local cache of the Hub. A Hub model is fetched before it is
loaded, since transformers would prefer a folder of its name in the working directory.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import snapshot_download
from transformers import AutoConfig, PreTrainedConfig

from w2s_ray.catalog.digests import WEIGHTS, digest, hub_id, local_path
from w2s_ray.catalog.model_files import (
    ADAPTER_CONFIG,
    CHAT_TEMPLATE,
    CONFIG,
    PICKLED_WEIGHTS,
    TOKENIZER_FILES,
    WEIGHT_FORMATS,
    check_folder,
    check_tokenizer,
    readable_files,
    weight_files,
)
from w2s_ray.errors import InputError
from w2s_ray.models.gguf import unpacked

_SMALL_FILES = (CONFIG, ADAPTER_CONFIG, *TOKENIZER_FILES, CHAT_TEMPLATE)


@contextmanager
def model_folder(source: str, revision: str | None, *, weights: bool) -> Iterator[Path]:
    """A folder of links to a model's configuration, tokenizer and, if wanted, weights.

    Raises:
        InputError: a folder in which other files matter: adapters, code, quantised weights.
        OSError: the Hub cannot be reached, and the files are not in the local cache.
    """
    folder = checked_folder(source, revision, weights=weights)
    with _links(readable_files(folder, weights=weights)) as links:
        yield links


def checked_folder(source: str, revision: str | None, *, weights: bool) -> Path:
    """The folder itself, for readers that open only the files they name; errors as above."""
    folder = _folder(source, revision, weights)
    check_folder(folder, source)
    for file in readable_files(folder, weights=weights):
        _check_cached(file)
    return folder


@contextmanager
def tokenizer_folder(source: str, revision: str | None) -> Iterator[Path]:
    """A folder of links to a tokenizer's files; errors as for ``model_folder``."""
    folder = _folder(source, revision, weights=False)
    check_tokenizer(folder, source)
    files = readable_files(folder, weights=False)
    for file in files:
        _check_cached(file)
    with _links(files) as links:
        yield links


def named_config(folder: Path, source: str) -> PreTrainedConfig | None:
    """The configuration of a Hub model under its name, by which transformers knows some tokenizers.

    Returns:
        None for every other source, and for a tokenizer without a configuration.
    """
    name = hub_id(source)
    if name is None or not (folder / CONFIG).is_file():
        return None
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError):  # as AutoTokenizer does for an unknown type of model
        config = PreTrainedConfig.from_pretrained(folder)
    config._name_or_path = name
    return config


@contextmanager
def _links(files: list[Path]) -> Iterator[Path]:
    """A folder that lives as long as a model is loaded from it."""
    with TemporaryDirectory(prefix="w2s-model-") as name:
        folder = Path(name)
        for file in files:
            (folder / file.name).symlink_to(file.resolve())
        yield folder


def _folder(source: str, revision: str | None, weights: bool) -> Path:
    name = hub_id(source)
    if name is not None:
        return _fetched(name, revision, weights)
    path = local_path(source)
    return unpacked(path) if path.is_file() else path


def _fetched(name: str, revision: str | None, weights: bool) -> Path:
    """The folder of the Hub's local cache with a model's files; those that it lacks are fetched."""
    folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(_SMALL_FILES)))
    if not weights:
        return folder
    # The folder's name is a commit: with it, all files are of one.
    commit = folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else revision
    for whole, index in WEIGHT_FORMATS:
        snapshot_download(name, revision=commit, allow_patterns=[CONFIG, whole, index])
        files = weight_files(folder)
        if files:
            break
    else:
        raise FileNotFoundError(f"it has neither {WEIGHTS} nor {PICKLED_WEIGHTS}")
    patterns = [CONFIG, *(file.name for file in files)]
    snapshot_download(name, revision=commit, allow_patterns=patterns)
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file.name} is missing")
    return folder


def _check_cached(file: Path) -> None:
    """Refuses a file of the Hub's local cache whose content was changed: its name is a checksum.

    Large files are named by SHA-256, others as Git names them. Where the cache has copies instead
    of links, nothing can be compared.
    """
    blob = file.resolve()
    if blob.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return
    if len(blob.name) == 64:
        content = digest(blob)
    else:
        data = blob.read_bytes()
        content = sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if content != blob.name:
        raise InputError(
            f"model {file}: its content in the local cache is not what the Hub gave; delete "
            f"{blob}, and it is fetched again"
        )
