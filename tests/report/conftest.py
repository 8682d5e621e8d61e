"""A finished study that reports are made of."""

import json

import numpy as np
import pytest
import yaml

from tests.testing.specs import tiny_spec
from w2s_ray.store.artifacts import Store
from w2s_ray.study import main

ROWS = 60
WORDS = ("apple", "boat", "cloud", "door", "egg", "fish", "glass", "hat")


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished study of pairs, two rows a prompt: two losses, three seeds, rates chosen."""
    folder = tmp_path_factory.mktemp("answers")
    draw = np.random.default_rng(0)
    for split in ("ground_truth", "weak", "test"):
        rows = []
        for number in range(ROWS):
            prompt = f"{split} {number // 2}?"
            chosen, rejected = (" ".join(draw.choice(WORDS, 4)) for _ in range(2))
            rows.append({"prompt": prompt, "chosen": f"{chosen} yes", "rejected": rejected})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {split: f"{split}.jsonl" for split in ("ground_truth", "weak", "test")}
    spec = tiny_spec(
        data={"pairs": {"kind": "preference", "splits": files}},
        validation={"rows": 10},
        select={"over": ["learning_rate"], "by": "weak_ce"},
        controls=["length"],
        grid__seed=[0, 1, 2],
        grid__learning_rate=[1e-3, 3e-2],
        grid__noise_ratio=[0.0, 0.25],
    )
    (folder / "study.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    assert main([str(folder / "study.yaml"), "--local"]) == 0
    return Store.open(folder / "store")
