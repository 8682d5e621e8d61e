"""Weights written one at a time are those that safetensors writes at once."""

import json
import weakref
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from w2s_ray.catalog.digests import WEIGHTS, WEIGHTS_INDEX
from w2s_ray.models.weight_files import write_file, write_weights

DTYPES = [
    torch.float64, torch.float32, torch.bfloat16, torch.float16,
    torch.int64, torch.int32, torch.uint8,
]  # fmt: skip


def kinds(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def model() -> dict[str, Tensor]:
    """Six tensors of 4,000 bytes, the last of another dtype."""
    made = {f"layers.{i}.weight": torch.randn(10, 100) for i in range(5)}
    return {**made, "a.bias": torch.randn(2000).bfloat16()}


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3)), min_size=1
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=50)
def test_a_file_is_byte_for_byte_that_of_safetensors(tmp_path_factory, drawn, random) -> None:
    folder = tmp_path_factory.mktemp("files")
    names = [f"é{random.random()}.{i}" for i in range(len(drawn))]
    tensors = {
        name: torch.randint(0, 100, shape).to(dtype)
        for name, (dtype, shape) in zip(names, drawn, strict=True)
    }
    write_file(folder / "ours", kinds(tensors), tensors.items())
    save_file(tensors, folder / "theirs", metadata={"format": "pt"})
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()


def test_a_tensor_may_be_a_view_and_is_written_as_it_reads(tmp_path) -> None:
    view = torch.arange(12.0).view(3, 4).T
    write_file(tmp_path / "file", kinds({"a": view}), [("a", view)])
    assert torch.equal(load_file(tmp_path / "file")["a"], view)


@pytest.mark.parametrize(
    ("shard_bytes", "shards"), [(24_000, 1), (23_999, 2), (8_000, 3), (4_000, 6), (1, 6)]
)
def test_shards_hold_what_they_may_and_the_index_finds_all(tmp_path, shard_bytes, shards) -> None:
    tensors = model()
    files = write_weights(tmp_path, kinds(tensors), tensors.items(), shard_bytes=shard_bytes)
    assert len(files) == shards
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        files if shards == 1 else [*files, WEIGHTS_INDEX]
    )
    if shards == 1:
        assert files == [WEIGHTS]
        found = load_file(tmp_path / WEIGHTS)
    else:
        assert files[0] == f"model-00001-of-{shards:05d}.safetensors"
        index = json.loads((tmp_path / WEIGHTS_INDEX).read_text())
        assert index["metadata"]["total_size"] == 24_000
        found = {}
        for name, file in index["weight_map"].items():
            with safe_open(tmp_path / file, framework="pt") as opened:
                assert opened.metadata() == {"format": "pt"}
                found[name] = opened.get_tensor(name)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_one_tensor_at_a_time_is_in_memory(tmp_path) -> None:
    """Each tensor is released before the next is requested."""
    shapes = {f"{i}": (torch.float32, (64,)) for i in range(5)}

    def coming() -> Iterator[tuple[str, Tensor]]:
        held = None
        for name in shapes:
            tensor = torch.full((64,), 1.0)
            yield name, tensor
            assert held is None or held() is None
            held = weakref.ref(tensor)
            del tensor

    write_weights(tmp_path, shapes, coming(), shard_bytes=512)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda given: given[:-1], "the weights end, expected b"),
        (lambda given: [*given, ("c", torch.zeros(1))], "c, expected no more"),
        (lambda given: given[::-1], r"b torch.float32 \(2,\), expected a"),
        (lambda given: [("a", torch.zeros(3, 1)), given[1]], r"a torch.float32 \(3, 1\), expected"),
        (lambda given: [("a", torch.zeros(3).half()), given[1]], "a torch.float16"),
    ],
)
def test_tensors_other_than_declared_are_refused(tmp_path, change, said) -> None:
    given = [("a", torch.zeros(3)), ("b", torch.zeros(2))]
    with pytest.raises(ValueError, match=said):
        write_weights(tmp_path, kinds(dict(given)), change(given))


def test_a_full_disk_is_an_error() -> None:
    from pathlib import Path

    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    tensors = {"a": torch.zeros(1 << 20)}
    with pytest.raises(OSError, match=r"No space|Invalid argument"):
        write_file(full, kinds(tensors), tensors.items())
