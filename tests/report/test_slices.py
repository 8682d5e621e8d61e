"""What a figure draws of a grid, and what its caption says of it."""

from dataclasses import replace

from w2s_ray.report.answers import Answer, Score
from w2s_ray.report.pair_figures import gap_figure
from w2s_ray.report.settings import Setting
from w2s_ray.report.slices import plainest, uneven
from w2s_ray.statistics.decomposition import Estimate
from w2s_ray.statistics.proportions import Interval
from w2s_ray.statistics.recovered_gap import Recovered


def test_the_plainest_value_does_nothing() -> None:
    assert plainest(["product", "mean", "learned"]) == "mean"
    assert plainest(["none", "knn"]) == "none"
    assert plainest([0.25, 1.0]) == 1.0
    assert plainest([0.4, 0.0, 1.0]) == 0.0


def test_means_over_fewer_seeds_are_counted() -> None:
    assert uneven([[3, 3], [2, 2]]) == ""
    assert uneven([[3, 2, 3], [1, 3]]) == " 2 of 5 means are over fewer seeds than others."


def test_a_ceiling_below_its_weak_model_has_no_number_in_the_heat_map() -> None:
    score = Score(Estimate(0.7, 1e-4, 9.0, 100), Interval(0.68, 0.72, "t"))
    axes = {"data": "d", "weak": "a", "strong": "b", "chain": "", "combine": "mean", "control": ""}
    axes |= {"loss": "reverse_kl", "loss_parameters": "{}"}
    gap = Recovered(0.4, 0.3, 0.5, 0.1, 0.08, 0.12)
    one = Answer(Setting(axes, ()), "seed", (0, 1), 0, student=score, recovered=gap)
    below = replace(
        one,
        setting=Setting(axes | {"strong": "c"}, ()),
        recovered=Recovered(1.9, 1.5, 2.3, -0.1, -0.12, -0.08),
    )
    figure = gap_figure([one, below], "reverse_kl", "")
    assert figure is not None
    assert figure.columns["value"] == [0.4, None]
    assert figure.columns["resolved"] == [True, False]
