"""Metrics of running steps for the Ray dashboard (and any Prometheus that scrapes it)."""

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

from w2s_ray.plan.step import Step

DESCRIPTIONS = {
    "loss": "loss of the step in nats",
    "tokens_per_second": "real tokens trained on in a second",
    "progress": "part of the step that is done, 0 to 1",
}
MIN_STEP_SECONDS = 5.0  # a shorter step would end before the next scrape


class Gauges:
    """The gauges ``w2s_ray_<name>`` of this process, tagged by study, kind and step."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._gauges = {
            name: Gauge(f"w2s_ray_{name}", text, tag_keys=("study", "kind", "step"))
            for name, text in DESCRIPTIONS.items()
        }

    def show(self, step: Step, numbers: Mapping[str, Any], seconds: float) -> None:
        """Exports the newest numbers of a step that has run for ``seconds``."""
        if seconds < MIN_STEP_SECONDS:
            return
        values = dict(numbers)
        if values.get("steps"):
            values["progress"] = values.get("step", 0) / values["steps"]
        tags = {"study": self._study, "kind": step.kind.name, "step": f"{step.slug}-{step.key}"}
        for name, gauge in self._gauges.items():
            if name in values:
                gauge.set(float(values[name]), tags)
