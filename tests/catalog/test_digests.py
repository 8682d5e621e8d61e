"""Digests are cached, and the cache may be lost or damaged."""

import json
import os
import time
from pathlib import Path

from w2s_ray.catalog.digests import cache_folder, digest


def test_digests_are_cached_and_losing_the_cache_is_harmless(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    fresh = digest(file)
    assert not cache_folder().exists()  # too young: it may change within its time stamp
    past = time.time() - 100
    os.utime(file, (past, past))
    time.sleep(2.1)
    assert digest(file) == fresh
    cache = cache_folder() / "digests.json"
    cached = json.loads(cache.read_text())
    cached[str(file.resolve())][3] = "from the cache"
    cache.write_text(json.dumps(cached))
    assert digest(file) == "from the cache"
    cache.write_text('{"broken')
    assert digest(file) == fresh
    os.utime(file, (past, past + 1))
    cache.write_text(json.dumps(cached))
    assert digest(file) == fresh
