"""What ``--plan`` says of a study whose GPU type is named."""

import json
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from tests.testing.calls import calls
from tests.testing.specs import TINY_MODEL, tiny_config, tiny_spec
from w2s_ray.console.plan_view import describe, duration, show
from w2s_ray.plan.build import build
from w2s_ray.plan.measured_speed import Speed
from w2s_ray.spec.schema import Spec
from w2s_ray.study import main

MODELS = {name: {"source": f"hf:Qwen/Qwen2.5-{name}"} for name in ("0.5B", "7B")}
FIELDS = (
    "kind model trainable steps todo workers zero_stage offload activation_checkpointing "
    "micro_batch_tokens predicted_memory_bytes seconds_an_update gpu_hours why"
)


def study(**changes: Any) -> dict[str, Any]:
    grid = {"pair": [["0.5B", "7B"]], "loss": ["forward_kl"], "trainable": ["full"], "seed": [0, 1]}
    return tiny_spec(
        **{"models": MODELS, "grid": grid, "training": {}, "execution": {"gpu_type": "H100"}}
        | changes
    )


def described(content: dict[str, Any], finished: tuple[str, ...] = ()) -> dict[str, Any]:
    spec = Spec.model_validate(content)
    return describe(spec, build(spec), finished, {}, ())


def test_each_kind_of_step_is_placed() -> None:
    output = described(study())
    placed = {(entry["kind"], entry["model"]): entry for entry in output["placements"]}
    assert placed.keys() == {
        ("weak", "0.5B"), ("label", "0.5B"), ("ceiling", "7B"), ("student", "7B")
    }  # fmt: skip
    assert all(" ".join(entry) == FIELDS for entry in output["placements"])
    student = placed["student", "7B"]
    assert student["workers"] == 2 and student["steps"] == student["todo"] == 2
    assert student["predicted_memory_bytes"] > 40e9 and student["seconds_an_update"] > 0
    assert output["gpu_hours"] == sum(entry["gpu_hours"] for entry in output["placements"]) > 0
    assert output["gpu_type"] == "H100" and output["machine"] == "p5.48xlarge"
    assert output["usd"] is None and output["gpus"] == 8
    assert output["wall_hours"] >= output["chain_hours"] > 0 < output["start_gpu_hours"]
    json.dumps(output)


def test_a_price_counts_computing_and_starting(monkeypatch: Any) -> None:
    monkeypatch.setenv("W2S_USD_PER_HOUR", "p5.48xlarge=32")
    output = described(study())
    paid = output["gpu_hours"] + output["start_gpu_hours"]
    assert output["usd"] == pytest.approx(32 / 8 * paid)


def test_without_a_type_hours_are_those_of_the_measured_speed() -> None:
    spec = Spec.model_validate(study(execution={}))
    plan = build(spec)
    output = describe(spec, plan, (), {}, (), Speed(2.0e9, 3))
    assert output["wall_hours"] == pytest.approx(output["flops"] / 2.0e9 / 3600)
    console = Console(file=StringIO(), width=200)
    show(output, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "of one process (as 3 finished steps did)" in text
    show(describe(spec, plan, tuple(plan.steps), {}, (), Speed(2.0e9, 3)), console)


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0.001, "3.6 s"),
        (0.5, "30 min"),
        (0.999, "60 min"),
        (1.0, "1 h"),
        (30.25, "30 h"),
        (720, "720 h"),
    ],
)
def test_durations_have_two_digits(hours: float, text: str) -> None:
    assert duration(hours) == text


def test_what_is_done_costs_nothing_more() -> None:
    keys = tuple(build(Spec.model_validate(study())).steps)
    output = described(study(), keys)
    assert output["wall_hours"] == output["start_gpu_hours"] == 0
    assert output["gpu_hours"] == 0 and all(entry["todo"] == 0 for entry in output["placements"])


def test_heads_cost_what_their_features_do() -> None:
    grid = {"pair": [["0.5B", "7B"]], "loss": ["forward_kl"], "trainable": ["last_layer"]}
    output = described(study(grid=grid))
    assert {entry["kind"] for entry in output["placements"]} == {"features"}


def test_what_is_trained_has_a_line_of_its_own_where_no_time_is_known() -> None:
    """Two ways to train one model of unknown shape differ in nothing else."""
    models = {name: {"source": f"hf:nobody/{name}"} for name in ("small", "large")}
    grid = {"pair": [["small", "large"]], "loss": ["forward_kl"], "trainable": ["full", "lora"]}
    fixed = {"gpu_type": "H100", "workers": 2, "zero_stage": 2}
    output = described(study(models=models, grid=grid, execution=fixed))
    students = [e["trainable"] for e in output["placements"] if e["kind"] == "student"]
    assert sorted(students) == ["full", "lora"]


def test_without_a_type_there_is_nothing_to_place() -> None:
    output = described(study(execution={}))
    assert output["placements"] == [] and output["gpu_hours"] is None
    assert output["wall_hours"] is output["machine"] is None


def test_a_failed_step_says_how_many_wait_for_it() -> None:
    """A weak model keeps its labels and scores waiting, and the students that learn from them."""
    spec = Spec.model_validate(study())
    plan = build(spec)
    weak = next(step for step in plan if step.kind.name == "weak")
    output = describe(spec, plan, (), {weak.key: {"error": "no memory"}}, ())
    waiting = {weak.key}
    for step in plan:
        if waiting & set(step.inputs.values()):
            waiting.add(step.key)
    assert output["blocked"] == {weak.key: len(waiting) - 1}
    console = Console(file=StringIO(), width=120)
    show(output, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"({weak.key}): no memory ({len(waiting) - 1} steps wait for it)" in text
    assert output["failed_steps"][weak.key].startswith("weak ")


def test_people_see_a_table() -> None:
    console = Console(file=StringIO(), width=120)
    show(described(study()), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "on H100 in p5.48xlarge, predicted" in text and "GPU-hours on H100" in text
    (line,) = [line for line in text.splitlines() if "2 student" in line]
    assert "7B" in line and "1 GPU" in line and "GPU-seconds an update" in line


def test_the_command_refuses_what_cannot_fit(write_spec: Any, capsys: Any) -> None:
    path = write_spec(**study(execution={"gpu_type": "H100", "workers": 1, "offload": "none"}))
    assert main([str(path), "--plan"]) == 2
    error = capsys.readouterr().err
    assert "execution.workers: given 1, model '7B'" in error and "what fits: workers: 2" in error
    assert error.count("\n") == 1 and f"{path}:" in error


def test_a_thousand_cells_are_placed_at_once() -> None:
    models = {
        name: {**TINY_MODEL, "config": tiny_config(16 * n)} for n, name in ((1, "a"), (2, "b"))
    }
    grid = {
        "pair": [["a", "b"]],
        "loss": ["forward_kl", "reverse_kl"],
        "noise_ratio": [n / 50 for n in range(25)],
        "trainable": ["full"],
        "seed": list(range(20)),
    }
    content = study(models=models, grid=grid, training={"max_length_tokens": 128})
    counts = {}
    for name, execution in (("plain", {}), ("placed", {"gpu_type": "H100"})):
        spec = Spec.model_validate({**content, "execution": execution})
        counts[name] = calls(lambda spec=spec: describe(spec, build(spec), (), {}, ()))
    assert len(build(spec).cells) == 1_000
    assert counts["placed"] < 1.5 * counts["plain"]
