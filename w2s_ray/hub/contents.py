"""What is uploaded: the tables and the report of a study with a card, or one exported model."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml
from pyarrow import parquet

from w2s_ray.errors import InputError
from w2s_ray.plan.exports import EXPORTED
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import (
    predictions_file,
    report_folder,
    results_file,
    samples_file,
    train_predictions_file,
    transfer_file,
)

CARD = "README.md"


class Upload(NamedTuple):
    """Files for one repository of the Hub.

    Attributes:
        repo_type: ``dataset`` or ``model``.
        files: path in the repository → file here.
        card: content of its README.md; None: it is among the files, or there is none.
    """

    repo_type: str
    files: Mapping[str, Path]
    card: str | None

    def lines(self) -> list[str]:
        """Path and bytes of all that is uploaded, sorted by path."""
        sizes = {path: file.stat().st_size for path, file in self.files.items()}
        if self.card is not None:
            sizes[CARD] = len(self.card.encode())
        return [f"{size:>14,}  {path}" for path, size in sorted(sizes.items())]


def of_results(store_uri: str, study: str) -> Upload:
    """The tables of a study, its report if there is one, and a card that makes it a data set.

    Raises:
        InputError: the store is not a folder, or has no results of this study.
    """
    root = _folder(store_uri)
    tables = {
        name.partition("/")[0]: root / name
        for name in (
            results_file(study),
            predictions_file(study),
            train_predictions_file(study),
            transfer_file(study),
            samples_file(study),
        )
        if (root / name).is_file()
    }
    if "results" not in tables:
        raise InputError(f"{root}: no results of a study {study!r}; run the study first")
    files = {path.relative_to(root).as_posix(): path for path in tables.values()}
    report = root / report_folder(study)
    for path in sorted(report.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            files[f"report/{path.relative_to(report).as_posix()}"] = path
    return Upload("dataset", files, _card(study, tables, has_report="report/index.html" in files))


def of_model(store_uri: str, key: str) -> Upload:
    """An exported model, which has a card of its own.

    Args:
        key: of the step that trained it, or the beginning of its key.

    Raises:
        InputError: the store is not a folder, or not exactly one export has this key.
    """
    root = _folder(store_uri)
    folders = Store.open(store_uri).finished()
    exports = (root / path / EXPORTED for step, path in folders.items() if step.startswith(key))
    found = [config.parent for config in exports if config.is_file()]
    if len(found) != 1 or not key:
        raise InputError(
            f"--model: {len(found)} exported models with a key that begins with {key!r}; expected "
            "one (execution.export_models asks for exports; the end of a run lists them)"
        )
    files = {p.relative_to(found[0]).as_posix(): p for p in found[0].rglob("*") if p.is_file()}
    return Upload("model", files, None)


def _folder(store_uri: str) -> Path:
    if "://" in store_uri:
        raise InputError("the store must be a folder of this machine; copy it from the bucket")
    return Path(store_uri)


def _card(study: str, tables: Mapping[str, Path], *, has_report: bool) -> str:
    """The card: front matter from which the Hub shows each table, and what they are."""
    front = {
        "pretty_name": f"w2s_ray: {study}",
        "tags": ["weak-to-strong-generalization", "w2s_ray"],
        "configs": [
            {"config_name": name, "data_files": f"{name}/{path.name}"}
            for name, path in tables.items()
        ],
    }
    rows = {name: parquet.read_metadata(path).num_rows for name, path in tables.items()}
    listed = "\n".join(f"| `{name}` | {count:,} |" for name, count in rows.items())
    report = "\nThe report is `report/index.html`: download it and open it.\n" if has_report else ""
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {study}\n\n"
        "A study of weak-to-strong generalization, run by w2s_ray: how much of a strong model's "
        "ability is recovered when it learns from a weak model's labels.\n\n"
        f"| table | rows |\n|---|--:|\n{listed}\n{report}\n"
        "The columns are described in docs/results.md of w2s_ray.\n"
    )
