"""The figure of generated fields, on a run whose numbers are known."""

from __future__ import annotations

import pandas as pd
import pytest
from synthetic_run import SyntheticRun, make_experiment, record

from sizetransfer.contracts.specs import NoiseSchedule
from sizetransfer.drawing import Omitted, style
from sizetransfer.measures.generation import GenerationSpec
from sizetransfer.report.data import gather
from sizetransfer.report.drawn import draw
from sizetransfer.runs.trials import PaperValue, ReportSpec
from sizetransfer.scores.sampling import SamplerSpec

TEACHERS = ("medium-range", "long-range-stress")
SIZES = (24, 64)
WHITE = {("medium-range", 24): 0.04, ("medium-range", 64): 0.06}
WHITE |= {("long-range-stress", 24): 0.6, ("long-range-stress", 64): 0.7}
PART, CONTROL = "observable_mae", "observable_mae_control"


def rows(measure, part, scale):
    common = {"measure": measure, "part": part, "student": "R=4"}
    return [
        record(**common, teacher=teacher, size=size, seed=seed, value=scale * value * (1 + 0.1 * (2 * seed - 1)))
        for (teacher, size), value in WHITE.items()
        for seed in (0, 1)
    ]


def make(tmp_path, *, parts=(PART, CONTROL), measures=("generation", "exact-start")):
    paper = (
        PaperValue(
            source="table 5", teacher=TEACHERS[0], student="R=4", size=24, measure=measures[0], part=PART, value=0.2
        ),
        PaperValue(source="table 5", teacher=TEACHERS[1], student="R=4", measure=measures[0], part=PART, value=0.8),
        PaperValue(source="table 5", teacher=TEACHERS[1], student="R=4", measure=measures[0], part="other", value=0.9),
    )
    experiment = make_experiment(
        teachers=TEACHERS, students=("R=4",), seeds=(0, 1), sizes=SIZES, report=ReportSpec(paper=paper)
    )
    noise = NoiseSchedule(sigma_max=7.0)
    specs = {
        measures[0]: GenerationSpec(sampler=SamplerSpec(noise=noise), start="matched"),
        **{name: GenerationSpec(start="exact") for name in measures[1:]},
    }
    own = {**experiment.evaluation.measures, **specs}
    evaluation = experiment.evaluation.model_copy(update={"measures": own})
    experiment = experiment.model_copy(update={"evaluation": evaluation})
    scales = {PART: 1.0, CONTROL: 0.1}
    found = [row for i, name in enumerate(measures) for part in parts for row in rows(name, part, scales[part] / 10**i)]
    found += [record(teacher=teacher, student="R=4", size=64, seed=seed) for teacher in TEACHERS for seed in (0, 1)]
    return SyntheticRun(tmp_path, experiment, pd.DataFrame(found))


def drawn(run):
    with style.drawing():
        return draw("generation", gather(run))


def points(container):
    line = container.lines[0]
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_every_start_has_a_panel_with_the_errors_of_every_teacher(tmp_path):
    drawing = drawn(make(tmp_path))
    white, exact = drawing.figure.axes
    assert white.get_title(loc="left") == "generation: from white noise of matched variance, $\\sigma$ = 7"
    assert exact.get_title(loc="left") == "exact-start: from exact fields with noise, $\\sigma$ = 1"
    for axes, scale in ((white, 1.0), (exact, 0.1)):
        assert axes.get_yscale() == "log"
        ours = {one.get_label(): points(one) for one in axes.containers if one.get_label() != "paper"}
        for teacher in TEACHERS:
            expected = {size: scale * WHITE[teacher, size] for size in SIZES}
            assert ours[f"{teacher} R=4"] == pytest.approx(expected)
    assert "L = 24" in drawing.caption
    assert "(2 seeds)" in drawing.caption


def test_dashed_is_what_exact_fields_differ_by(tmp_path):
    axes = drawn(make(tmp_path)).figure.axes[0]
    dashed = {line.get_label(): line.get_ydata().tolist() for line in axes.lines if line.get_linestyle() == "--"}
    assert dashed[f"{TEACHERS[1]} exact"] == pytest.approx([0.06, 0.07])
    without = drawn(make(tmp_path, parts=(PART,))).figure.axes[0]
    assert not [line for line in without.lines if line.get_linestyle() == "--" and len(line.get_xdata())]


def test_the_controls_score_is_dotted_and_the_caption_says_where_the_process_starts(tmp_path):
    run = make(tmp_path)
    own = [row | {"part": "control_observable_mae"} for row in rows("generation", PART, 0.5)]
    for part, value in (("sigma_start", 1.0), ("sigma_needed", 6.5)):
        own += [row | {"part": part, "value": value} for row in rows("generation", PART, 1.0)]
    run = SyntheticRun(tmp_path, run.experiment, pd.concat([run.records, pd.DataFrame(own)], ignore_index=True))
    drawing = drawn(run)
    lines = {line.get_label(): line for line in drawing.figure.axes[0].lines if line.get_linestyle() == ":"}
    assert lines[f"{TEACHERS[1]} best known score"].get_ydata().tolist() == pytest.approx([0.3, 0.35])
    assert "medium-range 1 (6.5), 1 (6.5)" in drawing.caption


def test_the_papers_values_stand_beside_the_measure_size_and_part_that_they_belong_to(tmp_path):
    drawing = drawn(make(tmp_path))
    white, exact = drawing.figure.axes
    diamonds = [points(one) for one in white.containers if one.get_label() == "paper"]
    assert [list(one.values()) for one in diamonds] == [[0.2], [0.8]]
    places = [next(iter(one)) for one in diamonds]
    assert 24 < places[0] < 30
    assert 64 < places[1] < 75
    assert [one for one in exact.containers if one.get_label() == "paper"] == []
    assert "Open diamonds" in drawing.caption


def test_one_measure_is_one_panel_and_none_is_left_out_with_a_reason(tmp_path):
    assert len(drawn(make(tmp_path, measures=("generation",))).figure.axes) == 1
    nothing = drawn(make(tmp_path, parts=()))
    assert isinstance(nothing, Omitted)
    assert "generated fields" in nothing.reason
