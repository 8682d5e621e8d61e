"""Values that the command sets are checked, and reported, as those of the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w2s_ray.errors import InputError
from w2s_ray.spec.generation import GenerationSpec
from w2s_ray.spec.loading import load, located
from w2s_ray.spec.messages import SpecError
from w2s_ray.spec.overrides import parsed
from w2s_ray.spec.schema import Spec
from w2s_ray.study import main

FILE = """
study: hh
store: store
data:
  pairs:
    kind: preference
    source: generate:agreement
    sizes: &sizes {ground_truth: 48, weak: 40, test: 32}
  more: {kind: preference, source: "generate:agreement", seed: 1, sizes: *sizes}
models:
  m-0.5b: &model {init: random, architecture: llama, config: {hidden_size: 16}}
  m-3b: {<<: *model, init_seed: 1}
grid:
  data: [pairs]
  pair: [[m-0.5b, m-3b]]
  loss: [forward_kl, {name: symmetric_ce, a: 1.0, b: 0.5}]
  seed: 3
validation: null
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Spec | GenerationSpec]:
    path = tmp_path / "study.yaml"
    path.write_text(FILE)
    return lambda *texts: load(path, parsed(texts))


def test_a_value_takes_the_place_of_that_in_the_file(read: Callable[..., Any]) -> None:
    spec = read(
        "grid.seed=[0,1]", "training.lora.rank=4", "grid.loss[1].b=0.25", "validation.rows=8"
    )
    assert spec.grid.seed == (0, 1) and spec.training.lora.rank == 4
    assert dict(spec.grid.loss[1].parameters)["b"] == 0.25
    assert spec.validation is not None and spec.validation.rows == 8
    assert read("grid.seed=1", "grid.seed=2").grid.seed == (2,)
    assert read("training.learning_rate=1e-4").training.learning_rate.full == 1e-4


def test_a_part_that_the_file_shares_is_changed_in_one_place(read: Callable[..., Any]) -> None:
    spec = read("data.more.sizes.weak=20", "models.m-3b.config.hidden_size=32")
    assert (spec.data["pairs"].sizes.weak, spec.data["more"].sizes.weak) == (40, 20)
    sizes = {name: model.config["hidden_size"] for name, model in spec.models.items()}
    assert sizes == {"m-0.5b": 16, "m-3b": 32}  # in the file's order
    assert spec.models["m-3b"].init_seed == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid.seed", "--set: given 'grid.seed', expected FIELD=VALUE"),
        ("grid.seed=", "--set: given 'grid.seed=', expected FIELD=VALUE"),
        ("grid.seed=# no value", "--set: grid.seed: given '# no value', expected a value"),
        ("grid.seed=[0", "--set: grid.seed: given '[0', not YAML"),
        ("grid.seed=*x", "--set: grid.seed: given '*x', not YAML: found undefined alias"),
        ("grid..seed=1", "--set: grid..seed: given no path of a field"),
        ("grid={seed: 1, seed: 2}", "--set: grid: given 'seed' a second time"),
        ("grid.seed=[0,x]", "--set: grid.seed[1]: given 'x', expected a whole number"),
        ("grid.sead=1", "--set: grid.sead: given an unknown field"),
        ("trainig.epochs=1", "did you mean 'training'?"),
        ("grid.seed[0]=1", "--set: grid.seed: given [0] of '3', expected a list"),
        ("grid.loss[2]=jeffreys", "--set: grid.loss: given [2], expected the index"),
        ("grid.loss.0=jeffreys", "--set: grid.loss: given .0, expected the index"),
        ("models.m-4b.init_seed=1", "did you mean 'm-3b'?"),
        ("models.m-4b={init: random}", "--set: models.m-4b.architecture: given nothing"),
        ("grid.exclude={seed: 7}", "--set: grid.exclude[0]: given an entry that matches no cell"),
        ("grid.pair=[[m-0.5b, m-4b]]", "--set: grid.pair[0][1]: given 'm-4b'"),
        ("store=[]", "--set: store: given [], expected text"),
    ],
)
def test_a_mistake_is_one_line_with_the_option_in_place_of_the_file(
    read: Callable[..., Any], text: str, said: str
) -> None:
    with pytest.raises(SpecError) as refused:
        read(text)
    (line,) = refused.value.lines
    assert line.startswith("--set: ") and said in line


def test_the_line_is_that_of_the_file_or_the_option(
    read: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as refused:
        read("data.pairs.sizes.weak=0", "grid.pair=[[m-0.5b, m-0.5b]]", "models.m-3b.init=none")
    assert [line.split(": ")[:2] for line in refused.value.lines] == [
        ["--set", "data.pairs.sizes.weak"],
        ["--set", "models.m-3b.init"],
    ]
    path, mistake = tmp_path / "study.yaml", InputError("wrong", ("grid", "seed"))
    for texts, place in (("study=x", f"{path}:17"), ("grid.seed=1", "--set")):
        with (
            pytest.raises(SpecError, match=f"^{place}: grid.seed: "),
            located(path, parsed([texts])),
        ):
            raise mistake


def test_the_command_says_keeps_and_repeats_what_it_sets(
    write_spec: Callable[..., Path], capsys: Any
) -> None:
    spec = str(write_spec())
    sets = ["--set", "grid.seed=[0, 1]", "--set", "training.epochs=2"]
    assert main([spec, *sets, "--plan", "--json"]) == 0
    output = capsys.readouterr()
    described = json.loads(output.out)
    assert described["set"] == ["grid.seed=[0, 1]", "training.epochs=2"]
    assert described["study"] == "tiny" and described["axes"]["seed"] == [0, 1]
    assert output.err == "set          grid.seed=[0, 1], training.epochs=2\n"
    assert main([spec, *sets, "--explain", "reverse_kl noise=0 seed=1", "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert "--set 'grid.seed=[0, 1]' --set training.epochs=2 --only" in explained["run"]
    assert main([spec, "--set", "grid.seeds=1"]) == 2
    assert "did you mean 'seed'?" in capsys.readouterr().err
