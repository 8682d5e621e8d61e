"""Checks every bad model, in a process whose memory is bounded; prints what came of it.

As a program: it takes the folder to write them in and the limit on memory in bytes.
"""

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

from tests.testing.bad_model_changes import BadModel, tiny_folder
from tests.testing.bad_models import bad_models
from tests.testing.gguf_file import write_gguf
from w2s_ray.catalog.identity import weights_identity
from w2s_ray.errors import InputError
from w2s_ray.models.preflight import check_models
from w2s_ray.spec.schema import ModelSpec


def outcome(case: BadModel, good: Path, path: Path) -> dict[str, object]:
    """What a run says of a model, and how long it took."""
    if case.is_gguf:
        shutil.copy(good / "model.gguf", path)
    else:
        shutil.copytree(good / "folder", path)
    case.change(path)
    model = ModelSpec(source=str(path))
    start = time.process_time()
    try:
        weights_identity(model)
        check_models({"m": model}, None)
        line, kind = "nothing", "accepted"
    except InputError as error:
        line, kind = str(error), "InputError"
    except BaseException as error:  # what the corpus looks for; a panic is no Exception
        line, kind = repr(error)[:500], type(error).__name__
    return {
        "name": case.name,
        "kind": kind,
        "line": line,
        "seconds": time.process_time() - start,
        "fragment": case.fragment,
    }


def main() -> None:
    folder, memory = Path(sys.argv[1]), int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    good = folder / "good"
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
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for number, case in enumerate(bad_models()):
        path = folder / f"{number}{'.gguf' if case.is_gguf else ''}"
        print(json.dumps(outcome(case, good, path)), file=answers, flush=True)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
