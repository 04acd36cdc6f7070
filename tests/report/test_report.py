"""Figures, tables and the page, on a run whose numbers are known."""

from __future__ import annotations

import base64
import math
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pandas as pd
import pytest
from synthetic_run import (
    RADII,
    TEACHERS,
    CleanScoreSpec,
    DummyGraphSpec,
    SmoothedResponseSpec,
    SmoothedScoreSpec,
    SyntheticRun,
    make_experiment,
    make_records,
    make_run,
    paper_table,
    record,
)

from sizetransfer.contracts.errors import SpecError
from sizetransfer.drawing import Drawing, Omitted, style
from sizetransfer.report import write_report
from sizetransfer.report.criteria import regime
from sizetransfer.report.data import gather
from sizetransfer.report.drawn import draw
from sizetransfer.report.figures import BUILT_IN
from sizetransfer.report.tables import (
    VERDICT_COLUMNS,
    answer,
    format_number,
    manifest_rows,
    measured_tables,
    missing_trials,
    paper_rows,
    skipped_groups,
    verdict_rows,
)
from sizetransfer.report.training import training_curves
from sizetransfer.runs.compare import compare_runs
from sizetransfer.runs.trials import PaperValue, ReportSpec

VOID = {"meta", "link", "br", "hr", "img", "input"}
REPORTED = ("regimes", "size-sweep", "radius-sweep", "response-profile")


class Page(HTMLParser):
    """The page's elements; complains of tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    report = ReportSpec(figures=REPORTED, paper=paper_table(), notes=("P: three seeds.", "C: the gain.", "Read it."))
    return make_run(tmp_path_factory.mktemp("run"), report=report)


@pytest.fixture(scope="module")
def data(run):
    return gather(run)


@pytest.fixture(scope="module")
def page(run):
    return Page(write_report(run).read_text(encoding="utf-8"))


@pytest.fixture
def drawn():
    with style.drawing():
        yield draw


def lines(axes):
    """Lines through values: the containers of error bars, without reference lines."""
    return [container for container in axes.containers if container.get_label() != "paper"]


# --- figures


def test_the_size_sweep_has_a_line_for_every_teacher_and_student(drawn, data):
    error, response = drawn("size-sweep", data).figure.axes
    assert len(lines(error)) == len(lines(response)) == 9
    assert {tuple(line[0].get_xdata()) for line in lines(error)} == {(24, 64)}
    assert error.get_ylabel() == "relative RMSE of the clean score"


def test_lines_show_the_mean_over_seeds_with_its_standard_error(drawn, data):
    rows = data.run.records
    own = rows[(rows["teacher"] == "medium-range") & (rows["student"] == "R=8") & (rows["part"] == "relative_rmse")]
    values = own[own["size"] == 64]["value"]
    (line,) = [one for one in lines(drawn("size-sweep", data).figure.axes[0]) if one.get_label() == "medium-range R=8"]
    assert line[0].get_ydata()[1] == pytest.approx(values.mean())
    (low, high) = line[2][0].get_segments()[1][:, 1]
    assert (high - low) / 2 == pytest.approx(values.std() / math.sqrt(3))


def test_the_radius_sweep_has_a_line_for_every_teacher_and_the_papers_points(drawn, data):
    error, response = drawn("radius-sweep", data).figure.axes
    assert len(lines(error)) == 3
    assert len(lines(response)) == 6
    assert [tuple(line[0].get_xdata()) for line in lines(error)] == [(4, 8, 12)] * 3
    paper = [container for container in error.containers if container.get_label() == "paper"]
    assert [float(point[0].get_ydata()[0]) for point in paper] == [0.265, 0.163, 0.141]
    assert "paper's values" in drawn("radius-sweep", data).caption


def test_the_regimes_have_a_panel_for_every_teacher_with_its_verdict(drawn, data):
    panels = drawn("regimes", data).figure.axes
    assert [panel.get_title(loc="left") for panel in panels] == list(TEACHERS)
    assert [len(lines(panel)) for panel in panels] == [3, 3, 3]
    thin = [line.get_label() for line in panels[0].lines if str(line.get_label()).startswith(("linear", "null"))]
    assert thin == ["linear reference, R=4", "linear reference, R=8", "linear reference, R=12", "null"]
    assert [panel.texts[-1].get_text() for panel in panels] == ["transfers", "radius-limited", "degrades with size"]
    assert {text.get_text() for text in panels[1].texts[:-1]} == {"R = 4", "R = 8", "R = 12"}


def test_profiles_leave_out_what_is_exactly_zero_and_mark_the_radii(drawn, data):
    panel = drawn("response-profile", data).figure.axes[1]
    by_name = {line.get_label(): line[0] for line in lines(panel)}
    assert set(by_name) == {"teacher", *RADII}
    assert {name: max(by_name[name].get_xdata()) for name in RADII} == {"R=4": 4, "R=8": 8, "R=12": 12}
    assert max(by_name["teacher"].get_xdata()) == 16
    assert panel.get_yscale() == "log"
    assert len({axes.get_xlim() for axes in panel.get_figure().axes}) == 1
    vertical = {line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == ":"}
    assert vertical == {4, 8, 12}


CHOICES = {
    "one of each": {"teachers": TEACHERS[:1], "students": ("R=8",), "seeds": (0,), "sizes": (24,)},
    "one seed, many sizes": {"seeds": (3,), "sizes": (16, 24, 32, 48, 64), "train_size": 16},
    "many": {"teachers": [f"teacher {n}" for n in range(4)], "students": [f"s{n}" for n in range(5)],
             "radii": {f"s{n}": None if n == 4 else 2 * (n // 2 + 1) for n in range(5)}, "seeds": (0, 1)},
    "global only": {"students": ("all",), "radii": {"all": None}},
}  # fmt: skip


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_every_figure_draws_any_experiment(drawn, tmp_path, choices):
    data = gather(make_run(tmp_path, **choices))
    for name in REPORTED:
        drawing = drawn(name, data)
        for axes in drawing.figure.axes:
            assert lines(axes), name
            assert axes.get_xlabel()
        style.settle(drawing.figure)


def test_one_seed_changes_what_error_bars_are(tmp_path, data):
    assert "seeds (3 seeds)" in data.error_bars()
    one = gather(make_run(tmp_path, seeds=(0,)))
    assert "evaluation fields, of one seed" in one.error_bars()
    rows = one.values("clean-score", "relative_rmse")
    assert (rows["standard_error"] > 0).all()


def test_response_errors_without_a_reference_are_named_not_drawn(drawn, tmp_path):
    run = make_run(tmp_path)
    beyond = (run.records["part"] == "far_error") & (run.records["teacher"] == "short-range-simple")
    run.records.loc[beyond, "value"] = 1e6
    drawing = drawn("size-sweep", gather(run))
    assert len(lines(drawing.figure.axes[1])) == 6
    assert drawing.figure.axes[1].get_ylim()[1] < 2
    assert "Not shown: response errors above 3 (short-range-simple)" in drawing.caption


def test_a_figure_without_numbers_says_why(drawn, tmp_path, data):
    empty = gather(SyntheticRun(tmp_path, make_experiment(), pd.DataFrame()))
    for name in BUILT_IN:
        omitted = drawn(name, empty)
        assert isinstance(omitted, Omitted)
        assert omitted.reason
    assert isinstance(drawn("training", data), Omitted)


def test_an_unknown_figure_is_refused_with_the_nearest_name(data):
    with pytest.raises(SpecError, match="radius-sweep"):
        draw("radius-swep", data)


def test_figures_leave_matplotlib_as_it_was(data):
    before = dict(mpl.rcParams)
    with style.drawing():
        style.to_bytes(draw("regimes", data).figure, "svg")
        assert mpl.rcParams["svg.hashsalt"] == "sizetransfer"
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["transfers"] * 2, "transfers"),
        (["radius-limited", "transfers"], "radius-limited"),
        (["degrades with size", "transfers"], "radius-limited"),
        (["radius-limited", "degrades with size"], "degrades with size"),
        (["transfers", "not learned"], "not learned"),
        (["not learned", "transfers"], "undecided"),
        (["transfers", "undecided"], "undecided"),
    ],
)
def test_a_teachers_regime_follows_from_its_verdicts(found, expected):
    assert regime(SimpleNamespace(word=word) for word in found) == expected


def test_labels_are_spread_and_colours_differ():
    assert style.spread([0.0, 0.1, 0.2, 9.0], 1.0) == pytest.approx([-0.9, 0.1, 1.1, 9.0])
    assert style.spread([0.0, 2.0], 1.0) == [0.0, 2.0]
    assert len(set(style.teacher_colours(TEACHERS).values())) == 3
    shades = list(style.student_shades(["a", "b", "c"], "#0072B2").values())
    brightness = [sum(mpl.colors.to_rgb(shade)) for shade in shades]
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(brightness)) == 3


def test_training_histories_are_those_of_finished_trainings(drawn, tmp_path):
    run = make_run(tmp_path)
    for trial in run.experiment.trials()[1:4]:
        history = pd.DataFrame({"step": range(1, 400), "loss": [1 / step for step in range(1, 400)]})
        run.histories[trial.teacher_name, trial.student_name, trial.seed] = history
    curves = training_curves(run)
    assert [(curve.teacher, curve.student, curve.seed) for curve in curves] == [
        ("short-range-simple", "R=4", 1),
        ("short-range-simple", "R=4", 2),
        ("short-range-simple", "R=8", 0),
    ]
    assert all(len(curve.steps) == len(curve.loss) > 100 for curve in curves)
    assert isinstance(drawing := drawn("training", gather(run)), Drawing)
    assert [len(axes.lines) for axes in drawing.figure.axes] == [3, 0, 0]


# --- tables


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (0.16342, 0.00312, "0.163 ± 0.003"),
        (0.5337, 0.0109, "0.534 ± 0.011"),
        (0.5, 0.0097, "0.500 ± 0.010"),
        (0.25, 0.096, "0.25 ± 0.10"),
        (123.4, 25.0, "123 ± 25"),
        (1.234e-6, 2e-8, "(1.23 ± 0.02)e-6"),
        (0.0, 0.001, "0.0000 ± 0.0010"),
        (0.16342, math.nan, "0.163"),
        (0.5, 0.0, "0.5 ± 0"),
        (math.nan, 0.1, "–"),
        (math.inf, math.nan, "inf"),
    ],
)
def test_numbers_have_the_digits_that_their_error_supports(value, error, expected):
    assert format_number(value, error) == expected


def _paper_run(tmp_path, values, own_error=0.01, **paper):
    report = ReportSpec(
        paper=[PaperValue(source="t", teacher="medium-range", measure="clean-score", part="relative_rmse", **paper)]
    )
    experiment = make_experiment(teachers=("medium-range",), students=("R=4",), seeds=range(len(values)), report=report)
    rows = [record(seed=seed, size=64, value=value, n=8, standard_error=own_error) for seed, value in enumerate(values)]
    return gather(SyntheticRun(tmp_path, experiment, pd.DataFrame(rows)))


def test_the_papers_errors_keep_two_digits():
    assert format_number(0.691, 0.0376, error_digits=2) == "0.691 ± 0.038"
    assert format_number(0.17, 0.0005, error_digits=2) == "0.17000 ± 0.00050"
    assert format_number(1e-6, 2e-8, error_digits=2) == "(1.000 ± 0.020)e-6"


def test_the_difference_from_the_paper_by_hand(tmp_path):
    """Mean 0.28, standard error 0.01·√2/√2 = 0.01; (0.28 − 0.25)/√(0.01² + 0.02²) = 1.34; 12 % more."""
    (row,) = paper_rows(_paper_run(tmp_path, (0.27, 0.29), student="R=4", value=0.25, standard_error=0.02))
    assert (row.paper, row.ours, row.count) == ("0.250 ± 0.020", "0.280 ± 0.010", "2 seeds, 16 draws")
    assert (row.difference, row.relative) == ("+1.3", "+12.0 %")
    assert (row.part, row.measure, row.size) == ("relative_rmse", "clean-score", 64)


def test_seeds_that_agree_by_chance_are_not_far_from_the_paper(tmp_path):
    """Two seeds of 0.28, each ± 0.03 over fields: (0.28 − 0.25)/√(0.02² + 0.03²/2) = 1.03, not 1.5."""
    run = _paper_run(tmp_path, (0.28, 0.28), student="R=4", value=0.25, standard_error=0.02, own_error=0.03)
    assert paper_rows(run)[0].difference == "+1.0"


def test_a_paper_value_without_error_or_counterpart_is_said_to_be_so(tmp_path):
    (row,) = paper_rows(_paper_run(tmp_path, (0.27, 0.29), student="R=4", value=0.25))
    assert (row.paper, row.difference) == ("0.25", "–")
    (row,) = paper_rows(_paper_run(tmp_path, (0.27, 0.29), student="R=4", value=0.25, standard_error=0.02, size=24))
    assert (row.ours, row.difference) == ("not in this run", "–")


def test_the_measured_table_by_hand(tmp_path):
    experiment = make_experiment(teachers=("medium-range",), students=("R=4",), seeds=(0, 1), sizes=(24, 64))
    rows = [record(seed=seed, size=24, value=value) for seed, value in ((0, 0.1), (1, 0.3))]
    rows += [record(size=64, value=0.5, standard_error=0.02), record(part="field_std", value=1.0, standard_error=0.5)]
    rows += [record(part="profile", coordinate=2.0)]
    main, other = measured_tables(gather(SyntheticRun(tmp_path, experiment, pd.DataFrame(rows))))
    assert (main.part, main.main, main.sizes) == ("relative_rmse", True, [24, 64])
    assert main.rows == [("medium-range", "R = 4", "1–2", ["0.20 ± 0.10", "0.50 ± 0.02"])]
    assert (other.part, other.main, other.rows) == ("field_std", False, [("medium-range", "R = 4", "1", ["1.0 ± 0.5"])])


def test_the_verdict_table_and_the_answer(data):
    rows = {(row.teacher, row.student): row for row in verdict_rows(data)}
    assert len(rows) == 9
    limited = rows["medium-range", "R = 4"]
    assert (limited.word, limited.label) == ("radius-limited", "radius-limited (clean score)")
    assert "radius 4 alone costs" in limited.reason
    numbers = dict(zip(VERDICT_COLUMNS, limited.numbers, strict=True))
    assert (numbers["σ"], numbers["null"], numbers["linear reference"]) == ("clean", "0.6", "0.265")
    assert (numbers["best reference"], numbers["locality"], numbers["reach"]) == ("0.141", "0.224", "2.67")
    assert dict(zip(VERDICT_COLUMNS, rows["long-range-stress", "R = 12"].numbers, strict=True))["ρ"].startswith("1.4")
    sentence = answer(data)
    assert "on short-range-simple, transfers (clean score, to second order) at every radius" in sentence
    assert "on medium-range, radius-limited (clean score) at R = 4 and R = 8" in sentence
    assert "on long-range-stress, degrades with size (clean score) at every radius" in sentence


def test_a_manifest_is_listed_without_its_long_parts():
    manifest = {"device": "cpu", "versions": {"torch": "2.6"}, "trials": [{"key": "a"}], "deep": {"a": {"b": 1}}}
    assert list(manifest_rows(manifest)) == [("device", "cpu"), ("versions.torch", "2.6")]


# --- the page


def test_the_page_holds_every_figure_and_needs_no_other_file(page, run):
    images = page.all("img")
    assert len(images) == len(REPORTED)
    for name, image in zip(REPORTED, images, strict=True):
        prefix, _, content = image["src"].partition(",")
        assert prefix == "data:image/svg+xml;base64"
        svg = base64.b64decode(content)
        assert ET.fromstring(svg).tag.endswith("svg")
        assert svg == (run.path / "figures" / f"{name}.svg").read_bytes()
        assert (run.path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href", "srcset", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    (sheet,) = [text for text in page.text if "max-width: 1120px" in text]
    assert "url(" not in sheet
    assert "@import" not in sheet


def test_the_page_says_what_the_run_found(page, data):
    text = " ".join(" ".join(page.text).split())
    order = [answer(data), "Verdicts", "The rule", "Figures", "Beside the paper", "All measured numbers", "Skipped"]
    order += ["How it was made", "sizetransfer run synthetic --preset quick", "The resolved experiment"]
    assert [text.find(part) for part in order] == sorted(text.find(part) for part in order)
    assert text.find(order[0]) > 0
    tags = [attributes["class"] for attributes in page.all("span") if attributes.get("class", "").startswith("tag ")]
    assert {
        f"tag {name}" for name in ("transfers", "radius-limited", "degrades-with-size", "undecided", "P", "C")
    } <= set(tags)
    assert "prefers-color-scheme: dark" in text
    assert "Nothing: every trial was measured" in text


def test_user_text_is_escaped(tmp_path):
    bad = '<script>alert("x")</script>'
    report = ReportSpec(figures=("regimes",), notes=(bad,))
    experiment = make_experiment(teachers=(bad,), students=("R=4",), seeds=(0,), report=report, title=bad)
    run = SyntheticRun(
        tmp_path,
        experiment,
        make_records(experiment),
        manifest={bad: bad},
        failures=[{"trial": "k", "label": bad, "error": bad}],
        skipped=[{"label": bad, "measure": bad, "reason": bad}],
    )
    text = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "".join(Page(text).text).count(bad) >= 10


def test_an_incomplete_run_names_what_is_missing_and_why(tmp_path):
    experiment = make_experiment(report=ReportSpec(figures=("regimes",)))
    rows = make_records(experiment)
    gone = (rows["teacher"] == "medium-range") & (rows["student"] == "R=12") & (rows["seed"] == 2)
    skipped = [{"label": f"t / s / seed {n}", "measure": "jacobian", "reason": "no score"} for n in range(2)]
    failures = [{"trial": "abc", "label": "medium-range / R=12 / seed 2", "error": "loss is nan\nat step 3"}]
    run = SyntheticRun(tmp_path, experiment, rows[~gone], failures=failures, skipped=skipped)
    assert missing_trials(gather(run)) == ["medium-range / R=12 / seed 2"]
    assert skipped_groups(gather(run)) == [("jacobian", "no score", 2, "t / s / seed 0, t / s / seed 1")]
    text = " ".join(" ".join(Page(write_report(run).read_text(encoding="utf-8")).text).split())
    for part in ("This run is incomplete.", "26 of 27 trials", "loss is nan", "no score (2 trials:"):
        assert part in text


def test_a_run_without_any_record_still_has_a_report(tmp_path):
    run = SyntheticRun(tmp_path, make_experiment(), pd.DataFrame())
    text = " ".join(" ".join(Page(write_report(run).read_text(encoding="utf-8")).text).split())
    assert "0 of 27 trials" in text
    assert "Not drawn: regimes (no record of the error of a score)" in text
    assert text.count("undecided") >= 9


def test_the_same_run_gives_the_same_bytes_and_leaves_no_temporary_file(tmp_path):
    run = make_run(tmp_path, teachers=TEACHERS[:1], report=ReportSpec(figures=("response-profile",)))
    write_report(run)
    before = {path.name: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    write_report(run)
    assert {path.name: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert set(before) == {"report.html", "response-profile.svg", "response-profile.png"}


# --- what a verdict rests on, and what there is without one


SMOOTHED = {
    (0.3, "R=4"): (0.20, 0.20),
    (0.3, "R=12"): (0.20, 0.20),
    (1.0, "R=4"): (0.10, 0.10),
    (1.0, "R=12"): (0.05, 0.05),
}
"""Errors at sizes 24 and 64 by noise level and student: the largest is not the one that the radius limits."""


def smoothed_run(path, *, teacher="critical", clean=False, **choices):
    students = ("R=4", "R=12")
    measures = {"low-noise": CleanScoreSpec(), "noisy": SmoothedScoreSpec()}
    report = ReportSpec(figures=("regimes", "size-sweep", "radius-sweep"))
    experiment = make_experiment(
        teachers=(teacher,), students=students, seeds=(0,), measures=measures, report=report, **choices
    )
    common = {"teacher": teacher, "measure": "noisy"}
    rows = [
        record(**common, student=student, radius=RADII[student], size=size, coordinate=sigma, value=value)
        for (sigma, student), values in SMOOTHED.items()
        for size, value in zip((24, 64), values, strict=True)
    ]
    if clean:
        rows += [
            record(teacher=teacher, student=student, radius=RADII[student], size=size, measure="low-noise")
            for student in students
            for size in (24, 64)
        ]
    return SyntheticRun(path, experiment, pd.DataFrame(rows))


def test_without_a_clean_score_every_noise_level_of_the_smoothed_score_is_judged(tmp_path):
    """No skill is known, so that figures show the level of the largest error."""
    data = gather(smoothed_run(tmp_path))
    assert {level.sigma for verdict in data.verdicts for level in verdict.shown.levels} == {0.3, 1.0}
    assert str(data.criterion("critical")) == "smoothed score at σ = 0.3"
    assert {verdict.word for verdict in data.verdicts} == {"undecided"}


def test_figures_show_the_clean_score_where_there_is_one(tmp_path):
    data = gather(smoothed_run(tmp_path, clean=True))
    assert data.criterion("critical").score == "clean score"
    assert {level.sigma for verdict in data.verdicts for level in verdict.shown.levels} == {0.0, 0.3, 1.0}
    assert "σ" not in answer(data)


def test_the_report_names_the_noise_level_that_its_figures_show(drawn, tmp_path):
    run = smoothed_run(tmp_path)
    text = " ".join(" ".join(Page(write_report(run).read_text(encoding="utf-8")).text).split())
    for part in (
        "Trained at L = 24 and asked for the score up to L = 64: on critical, undecided at every radius",
        "at the noise level of the least skill: σ = 0.3 (critical)",
        "relative_rmse at σ = 0.3 (noisy)",
    ):
        assert part in text, part
    (panel,) = drawn("regimes", gather(run)).figure.axes
    assert panel.get_ylabel() == "relative RMSE of the smoothed score"
    assert panel.get_title(loc="left") == "critical, $\\sigma$ = 0.3"
    assert {tuple(line[0].get_ydata()) for line in lines(panel)} == {(0.2, 0.2)}


def test_a_run_that_measures_no_error_says_what_it_measured_instead_of_a_verdict(tmp_path):
    measures = {"ranges": SmoothedResponseSpec()}
    experiment = make_experiment(teachers=("a", "b"), students=("R=4",), sizes=(48,), measures=measures, steps=0)
    rows = [record(teacher=name, size=48, measure="ranges", part="r_hat", coordinate=1.0) for name in ("a", "b")]
    run = SyntheticRun(tmp_path, experiment, pd.DataFrame(rows))
    assert answer(gather(run)) == (
        "Nothing was trained, and no error of a student's score was measured. Measured: ranges of a and b at L = 48."
    )
    page = Page(write_report(run).read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.text).split())
    for wrong in ("Trained at", "The rule", "(trained)"):
        assert wrong not in text
    assert "None: a verdict rests on the error of a student's score" in text
    assert not [one for one in page.all("span") if one.get("class", "").startswith("tag ")]


def test_a_trained_run_without_errors_still_says_where_it_was_trained(tmp_path):
    experiment = make_experiment(measures={"ranges": SmoothedResponseSpec()})
    sentence = answer(gather(SyntheticRun(tmp_path, experiment, pd.DataFrame())))
    assert sentence == ("Trained at L = 24, and no error of a student's score was measured. Nothing was measured.")


def test_students_that_were_not_trained_are_not_said_to_be(drawn, tmp_path):
    data = gather(make_run(tmp_path, steps=0))
    assert answer(data).startswith("Nothing was trained and students as they are built were asked for the score up to")
    for name in ("regimes", "size-sweep"):
        drawing = drawn(name, data)
        assert "raining size" not in drawing.caption
        assert not [line for axes in drawing.figure.axes for line in axes.lines if line.get_linestyle() == ":"]
    assert "(trained)" not in write_report(data.run).read_text(encoding="utf-8")


def test_sizes_of_graphs_are_not_called_lattice_sizes(drawn, tmp_path):
    run = make_run(tmp_path, teacher_spec=DummyGraphSpec, report=ReportSpec(figures=REPORTED))
    text = " ".join(" ".join(Page(write_report(run).read_text(encoding="utf-8")).text).split())
    for wrong in ("L = ", "L* ", "(R, L)", "lattice size"):
        assert wrong not in text
    assert "Trained at N = 24 and asked for the score up to N = 64" in text
    for name in REPORTED:
        drawing = drawn(name, gather(run))
        labels = [label for axes in drawing.figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())]
        assert not [label for label in labels if "lattice" in label or "$L$" in label or "Chebyshev" in label]
        assert "L = " not in drawing.caption
    assert drawn("regimes", gather(run)).figure.axes[0].get_xlabel() == "size of the graph $N$ (sites)"


# --- two runs


def test_two_runs_are_matched_number_by_number(tmp_path):
    experiment = make_experiment(teachers=("medium-range",))
    a = [record(seed=seed, value=value) for seed, value in ((0, 0.1), (1, 0.3))]
    a += [record(size=64, value=0.5, standard_error=0.03), record(part="profile_teacher", coordinate=1.0, value=2.0)]
    b = [record(value=0.4, standard_error=0.0), record(part="profile_teacher", coordinate=2.0, value=3.0)]
    b += [record(size=64, value=0.25, standard_error=0.04)]
    table = compare_runs(*(SyntheticRun(tmp_path, experiment, pd.DataFrame(rows)) for rows in (a, b)))
    rows = {(row["part"], row["size"], row["found_in"]): row for row in table.to_dict("records")}
    assert len(table) == 4
    assert rows["relative_rmse", 24, "both"]["difference"] == pytest.approx(0.2)
    assert rows["relative_rmse", 24, "both"]["standard_errors"] == pytest.approx(2.0)
    assert rows["relative_rmse", 64, "both"]["standard_errors"] == pytest.approx(-5.0)
    assert rows["profile_teacher", 24, "a"]["value_a"] == 2.0
    assert math.isnan(rows["profile_teacher", 24, "b"]["difference"])
    assert rows["profile_teacher", 24, "b"]["coordinate"] == 2.0


def test_runs_whose_seeds_agree_by_chance_do_not_differ_for_sure(tmp_path):
    rows = [[record(seed=seed, value=value, standard_error=0.1) for seed in (0, 1)] for value in (0.3, 0.4)]
    experiment = make_experiment(teachers=("medium-range",))
    (row,) = compare_runs(*(SyntheticRun(tmp_path, experiment, pd.DataFrame(one)) for one in rows)).to_dict("records")
    assert row["standard_errors"] == pytest.approx(1.0)  # 0.1 over √(2 · 0.1²/2); the seeds alone say infinity


def test_a_run_differs_from_itself_in_nothing_and_from_an_empty_one_in_everything(run, tmp_path):
    same = compare_runs(run, run)
    assert set(same["found_in"]) == {"both"}
    assert (same["standard_errors"].dropna() == 0).all()
    empty = SyntheticRun(tmp_path, make_experiment(), pd.DataFrame())
    assert set(compare_runs(empty, run)["found_in"]) == {"b"}
    assert len(compare_runs(empty, empty)) == 0


def test_ticks_whose_labels_would_touch_are_left_out():
    levels = [0.05 * 1.395**place for place in range(10)]
    kept = style.apart(levels)
    assert 2 < len(kept) < len(levels)
    assert kept[-1] == levels[-1]
    assert style.apart([16, 24, 32, 48, 64]) == [16, 24, 32, 48, 64]
