"""Reads every bad source of data, in a process whose memory is bounded; prints what came of it.

As a program: it takes the folder to write them in and the limit on memory in bytes.
"""

import json
import resource
import shutil
import sys
import time
from pathlib import Path

from tests.testing.bad_data import bad_data
from tests.testing.bad_data_writers import BadData
from w2s_ray.data.prepare import prepare
from w2s_ray.data.sources import data_identity
from w2s_ray.errors import InputError
from w2s_ray.spec.schema import DataSpec


def outcome(case: BadData, folder: Path) -> dict[str, object]:
    """What a run says of a source, and how long it took."""
    path = folder / case.name
    case.write(path)
    data = DataSpec.model_validate(
        {
            "kind": case.kind,
            "source": str(path),
            "sizes": {"ground_truth": 1, "weak": 1, "test": 1},
        }
    )
    start = time.process_time()
    try:
        data_identity(data)
        prepare(data)
        line, kind = "nothing", "accepted"
    except InputError as error:
        line, kind = str(error), "InputError"
    except Exception as error:  # what the corpus looks for
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
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for number, case in enumerate(bad_data()):
        own = folder / str(number)
        own.mkdir()
        print(json.dumps(outcome(case, own)), flush=True)
        shutil.rmtree(own)  # some are large


if __name__ == "__main__":
    main()
