"""What a study asks of an object store, counted by a proxy before an S3 server."""

from pathlib import Path

import pytest
import yaml

from tests.testing.chaos.forks import Forks, Request
from tests.testing.chaos.s3 import CREDENTIALS, MOTO, Proxy, address, moto_server, serving
from tests.testing.specs import tiny_spec

pytestmark = [pytest.mark.long, pytest.mark.slow]

CELLS = 1008
GRID = {
    "grid__loss": ["forward_ce", "forward_kl", "reverse_kl", "reverse_ce"],
    "grid__noise_ratio": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
    "grid__confidence_weight": [0.0, 0.5],
    "grid__seed": list(range(21)),
}
REQUESTS_PER_CELL = 0.7  # 21 seeds: 42 models, their labels and claims beside the bundles


@pytest.mark.skipif(moto_server() is None, reason=f"there is no moto_server, see {MOTO}")
def test_a_thousand_cells_ask_little_of_an_object_store(tmp_path: Path, forks: Forks) -> None:
    spec, output = tmp_path / "study.yaml", tmp_path / "output"
    spec.write_text(yaml.safe_dump(tiny_spec(**GRID)))
    counts = []
    with serving() as port:
        proxy = Proxy(port)
        arguments = [str(spec), "--local", "--no-report", "--store", address(proxy.port, "study")]
        environment = {**CREDENTIALS, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        for _ in range(2):
            proxy.calm()
            pid = forks.start(Request(arguments, str(output), environment=environment))
            assert forks.wait(pid) == 0, output.read_text()
            counts.append(dict(proxy.counts))
    first, second = (sum(count.values()) for count in counts)
    print(f"{CELLS:,} cells: {counts[0]}, {first / CELLS:.3f} a cell; again: {counts[1]}")
    assert first <= REQUESTS_PER_CELL * CELLS
    assert second <= first / 2
