"""Reads every bad source of data, then checks every bad model; prints what came of each.

As a program: it takes the folder to write them in. Its memory is bounded.
"""

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from w2s_ray.errors import InputError

# Bytes of address space, most of it that of the libraries.
DATA_MEMORY, MODEL_MEMORY = 3_000_000_000, 9_000_000_000


class Case(NamedTuple):
    """A bad file.

    Attributes:
        fragment: of the line that refuses it.
        write: writes it and returns what reads it.
    """

    name: str
    fragment: str
    write: Callable[[], Callable[[], object]]


def data_cases(folder: Path) -> Iterator[Case]:
    from tests.testing.bad_data import bad_data
    from tests.testing.bad_data_writers import BadData
    from w2s_ray.data.prepare import prepare
    from w2s_ray.data.sources import data_identity
    from w2s_ray.spec.schema import DataSpec

    def write(case: BadData) -> Callable[[], object]:
        case.write(path := folder / case.name)
        sizes = {"ground_truth": 1, "weak": 1, "test": 1}
        given = {"kind": case.kind, "source": str(path), "sizes": sizes}
        data = DataSpec.model_validate(given)
        return lambda: (data_identity(data), prepare(data))

    limit_memory(DATA_MEMORY)
    for case in bad_data():
        yield Case(case.name, case.fragment, partial(write, case))


def model_cases(folder: Path) -> Iterator[Case]:
    from tests.testing.bad_model_changes import BadModel, tiny_folder
    from tests.testing.bad_models import bad_models
    from tests.testing.gguf_file import write_gguf
    from w2s_ray.catalog.identity import weights_identity
    from w2s_ray.models.preflight import check_models
    from w2s_ray.spec.schema import ModelSpec

    good = folder.with_name("good")
    good.mkdir()
    tiny_folder(good / "folder")
    write_gguf(good / "model.gguf")
    shutil.copytree(good / "folder", other := good / "other")
    (other / "config.json").write_text('{"model_type": "mistral"}')
    for name in ("folder", "model.gguf", "other"):  # what libraries load once is no part of a case
        model = ModelSpec(source=str(good / name))
        weights_identity(model)
        if name != "other":
            check_models({"m": model}, None)

    def write(case: BadModel) -> Callable[[], object]:
        path = folder / ("bad.gguf" if case.is_gguf else "bad")
        if case.is_gguf:
            shutil.copy(good / "model.gguf", path)
        else:
            shutil.copytree(good / "folder", path)
        case.change(path)
        model = ModelSpec(source=str(path))

        def read() -> None:
            weights_identity(model)
            check_models({"m": model}, None)

        return read

    limit_memory(MODEL_MEMORY)
    for case in bad_models():
        yield Case(case.name, case.fragment, partial(write, case))


def limit_memory(size: int) -> None:
    """Bounds this process, until another bound is set."""
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def outcome(case: Case) -> dict[str, object]:
    """What a run says of a case, and how long it took."""
    read = case.write()
    start = time.process_time()
    try:
        read()
        line, kind = "nothing", "accepted"
    except InputError as error:
        line, kind = str(error), "InputError"
    except BaseException as error:  # what the corpus looks for; a panic is no Exception
        line, kind = repr(error)[:500], type(error).__name__
    seconds = time.process_time() - start
    told = {"kind": kind, "line": line, "seconds": seconds}
    return {"name": case.name, "fragment": case.fragment, **told}


def main() -> None:
    folder = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    for corpus, cases in {"data": data_cases, "models": model_cases}.items():
        limit_memory(resource.RLIM_INFINITY)  # what a corpus imports is not what it tries
        for case in cases(own := folder / corpus):
            own.mkdir()
            print(json.dumps({"corpus": corpus, **outcome(case)}), file=answers, flush=True)
            shutil.rmtree(own)  # some are large


if __name__ == "__main__":
    main()
