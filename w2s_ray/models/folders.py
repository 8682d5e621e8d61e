"""The folders that transformers loads from: links to the files that are read, and nothing else.

A loader looks around in the folder it is given: for an adapter, another configuration, code. It
sees here what the key of a step names (``catalog.model_files``), wherever the model comes from: a
folder, an unpacked GGUF file or the local cache of the Hub. A Hub model is fetched before it is
loaded, since transformers would prefer a folder of its name in the working directory.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import snapshot_download
from transformers import AutoConfig, PreTrainedConfig

from w2s_ray.catalog.digests import WEIGHTS, hub_id, local_path
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
    return folder


@contextmanager
def tokenizer_folder(source: str, revision: str | None) -> Iterator[Path]:
    """A folder of links to a tokenizer's files; errors as for ``model_folder``."""
    folder = _folder(source, revision, weights=False)
    check_tokenizer(folder, source)
    with _links(readable_files(folder, weights=False)) as links:
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
