"""The report that a run leaves in its store."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from w2s_ray.report.study_page import Choices, study_page
from w2s_ray.report.write import write_report
from w2s_ray.store.artifacts import Store
from w2s_ray.store.names import REPORT_PAGE, report_folder


def save_report(store: Store, study: str) -> str:
    """Writes the report of a study beside its tables, the page last; an earlier one is replaced.

    Returns:
        The path or URI of its page.

    Raises:
        InputError: the tables of the study cannot be read.
    """
    folder = report_folder(study)
    with TemporaryDirectory() as name:
        write_report(study_page(store, study, Choices()), Path(name))
        store.discard(folder)
        files = [path for path in sorted(Path(name).rglob("*")) if path.is_file()]
        for file in sorted(files, key=lambda path: path.name == REPORT_PAGE):
            relative = file.relative_to(name).as_posix()
            with store.writing(f"{folder}/{relative}") as path:
                shutil.copyfile(file, path)
    return store.location(f"{folder}/{REPORT_PAGE}")
