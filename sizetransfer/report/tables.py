"""The tables of a report, as rows of text that the template sets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sizetransfer.numerics.averages import Estimate
from sizetransfer.report.data import ReportData
from sizetransfer.runs.trials import PaperValue
from sizetransfer.verdict import Verdict

MISSING = "–"


def format_number(value: float, standard_error: float = math.nan, *, error_digits: int = 1) -> str:
    """Write a number with as many digits as its standard error supports.

    The standard error is rounded to one digit, or to two where the first is a one or ``error_digits`` is 2; a number
    without one gets three significant digits.

    Example:
        >>> format_number(0.16342, 0.00312)
        '0.163 ± 0.003'
        >>> format_number(0.5337, 0.0109)
        '0.534 ± 0.011'
        >>> format_number(0.16342)
        '0.163'
    """
    if math.isnan(value):
        return MISSING
    if not math.isfinite(value):
        return str(value)
    if not (math.isfinite(standard_error) and standard_error > 0):
        return f"{value:.3g}" + (" ± 0" if standard_error == 0 else "")
    exponent = _exponent(max(abs(value), standard_error))
    if exponent < -4 or exponent > 5:
        scale = 10.0**exponent
        return f"({format_number(value / scale, standard_error / scale, error_digits=error_digits)})e{exponent}"
    decimals = _decimals(standard_error, error_digits)
    return f"{value:.{decimals}f} ± {standard_error:.{decimals}f}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(value))


def _decimals(standard_error: float, digits: int) -> int:
    """Decimals that leave ``digits`` digits of the standard error, and two at least where the first would be a one."""
    first = _exponent(standard_error)
    leading = standard_error / 10.0**first
    if round(leading) >= 10:  # 0.0097 rounds to 0.010: its first digit is a one
        first += 1
        leading = 1.0
    return max(0, -first + (1 if digits == 2 or leading < 1.95 else 0))


def format_estimate(estimate: Estimate | None) -> str:
    """Value and standard error, or a dash where there is none."""
    return MISSING if estimate is None else format_number(estimate.value, estimate.standard_error)


@dataclass(frozen=True)
class VerdictRow:
    """One line of the verdict table: the word, and the numbers of one claim.

    Attributes:
        teacher, student: whose.
        word, label: the word, and the word with what it rests on.
        claim: whose numbers they are: of the recipe, or of one training.
        numbers: by the columns of :data:`VERDICT_COLUMNS`.
        recipe: the recipe's word.
        reason: why.
        remedies: what would decide it.
    """

    teacher: str
    student: str
    word: str
    label: str
    claim: str
    numbers: Sequence[str]
    recipe: str
    reason: str
    remedies: str


VERDICT_COLUMNS = (
    *("σ", "error", "null", "skill", "linear reference", "best reference", "irreducible"),
    *("locality", "training", "ρ", "detectable", "reach"),
)
"""The numbers of a verdict: at the training size of the level of least skill; ρ of the level that grows the most."""


def verdict_rows(data: ReportData) -> list[VerdictRow]:
    """The verdict table."""
    return [_verdict_row(verdict, data) for verdict in data.verdicts]


def _verdict_row(verdict: Verdict, data: ReportData) -> VerdictRow:
    shown = verdict.shown
    return VerdictRow(
        teacher=verdict.teacher,
        student=data.student_label(verdict.student),
        word=verdict.word,
        label=verdict.label,
        claim=shown.claim if shown.seed is None else f"{shown.claim} (seed {shown.seed})",
        numbers=verdict_numbers(verdict),
        recipe=verdict.recipe.label,
        reason=verdict.reason,
        remedies="; ".join(verdict.what_would_decide),
    )


def verdict_numbers(verdict: Verdict) -> tuple[str, ...]:
    """The numbers of a verdict as text, by :data:`VERDICT_COLUMNS`; a dash where there is none."""
    row = verdict.shown.headline
    sigma = row.get("sigma", math.nan)
    names = ("error", "null", "skill", "linear", "best", "irreducible", "locality", "training")
    ratio = format_number(row.get("ratio", math.nan))
    limits = [format_number(row.get(name, math.nan)) for name in ("ratio_lower", "ratio_upper")]
    return (
        "clean" if sigma == 0 else format_number(sigma),
        *(format_number(row.get(name, math.nan)) for name in names),
        ratio if MISSING in limits else f"{ratio} ({limits[0]} to {limits[1]})",
        _percent(row.get("detectable_growth", math.nan)),
        format_number(row.get("reach", math.nan)),
    )


def _percent(change: float) -> str:
    """A relative change with its sign; one that rounds to zero has none."""
    if math.isnan(change):
        return MISSING
    text = f"{100 * change:+.1f} %".replace("-", "−")
    return text[1:] if text[1:] == "0.0 %" else text


def answer(data: ReportData) -> str:
    """The run's answer in one sentence or two; what was measured, where it has none."""
    symbol = data.words.symbol
    trained = f"Trained at {symbol} = {data.training_size}" if data.training_size else "Nothing was trained"
    if not data.verdicts:
        return f"{trained}, and no error of a student's score was measured. {_measured(data)}"
    parts = [_answer_for(teacher, data) for teacher in data.experiment.teachers]
    asked = "asked for the score" if data.training_size else "students as they are built were asked for the score"
    return f"{trained} and {asked} up to {symbol} = {data.largest_size}: {'; '.join(parts)}.{data.noise_levels()}"


def _measured(data: ReportData) -> str:
    """What was measured, of which teachers and at which sizes, in a sentence."""
    table, parts = data.estimates, []
    for measure, rows in table.groupby("measure", sort=False):
        sizes = ", ".join(map(str, sorted({int(size) for size in rows["size"]})))
        teachers = [teacher for teacher in data.experiment.teachers if (rows["teacher"] == teacher).any()]
        parts.append(f"{measure} of {_listed(teachers)} at {data.words.symbol} = {sizes}")
    return f"Measured: {'; '.join(parts)}." if parts else "Nothing was measured."


def no_verdict(data: ReportData) -> str:
    """Why there are no verdicts."""
    return (
        "None: a verdict rests on the error of a student's score, clean or smoothed, or on held-out losses "
        f"in its place, and this experiment measures none of them. {_measured(data)}"
    )


def error_meaning(data: ReportData) -> str:
    """What the numbers of the verdict table are."""
    symbol, alpha = data.words.symbol, 100 * data.experiment.verdict.alpha
    trained = f"{symbol} = {data.experiment.training.size}"
    losses = " Where no exact score is known, they follow to second order from held-out losses, as the rule says."
    return (
        f"Relative errors of the score at the training size {trained}, at the noise level σ of the least skill: the "
        "student's; the null, of the best filter of radius 0; linear references of the student's radius and of any; "
        "the irreducible error of the radius, where it is known. Skill: share of the squared score known beyond the "
        "null. Locality and training: what the radius costs, and what training adds to it. ρ: the error at the largest "
        f"size over that at training, with its limits at {alpha:g} % each; detectable: the smallest growth that could "
        "have been called. Reach: up to how many training sizes the error stays. Numbers of several seeds are those of "
        f"the recipe, else of the training that grows the most.{losses if data.declarations.losses else ''}"
    )


def _answer_for(teacher: str, data: ReportData) -> str:
    groups: dict[str, list[str]] = {}
    for verdict in data.verdicts:
        if verdict.teacher == teacher:
            groups.setdefault(verdict.label, []).append(data.student_label(verdict.student))
    everywhere = len(groups) == 1 and sum(map(len, groups.values())) > 1
    said = [
        f"{name} {'at every radius' if everywhere else 'at ' + _listed(students)}" for name, students in groups.items()
    ]
    return f"on {teacher}, {_listed(said)}"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


@dataclass(frozen=True)
class PaperRow:
    """One number of the paper beside ours; ``difference`` in combined standard errors, ours minus the paper's."""

    source: str
    teacher: str
    student: str
    part: str
    measure: str
    size: int
    paper: str
    ours: str
    count: str
    relative: str
    difference: str


def paper_rows(data: ReportData) -> list[PaperRow]:
    """The paper's numbers beside ours."""
    return [_paper_row(value, data) for value in data.experiment.report.paper]


def _paper_row(value: PaperValue, data: ReportData) -> PaperRow:
    ours, draws, size = find_ours(value, data)
    paper = Estimate(value.value, math.nan if value.standard_error is None else value.standard_error)
    there = ours is not None and math.isfinite(ours.value)
    relative = (ours.value - paper.value) / abs(paper.value) if ours and there and paper.value else math.nan
    difference = ours.standard_errors_from(paper) if ours and there else math.nan
    return PaperRow(
        source=value.source,
        teacher=value.teacher,
        student=data.student_label(value.student),
        part=value.part,
        measure=value.measure,
        size=size,
        paper=format_number(paper.value, paper.standard_error, error_digits=2),
        ours=format_estimate(ours) if there else "not in this run",
        count=f"{ours.seeds} seed{'s' if ours.seeds > 1 else ''}, {draws} draws" if ours and there else MISSING,
        relative=_percent(relative),
        difference=MISSING if math.isnan(difference) else f"{difference:+.1f}".replace("-", "−"),
    )


def find_ours(value: PaperValue, data: ReportData) -> tuple[Estimate | None, int, int]:
    """Our estimate of a number of the paper, the draws that it rests on, and the lattice size."""
    evaluation = data.experiment.evaluation
    sizes = evaluation.sizes_of(value.measure) if value.measure in evaluation.measures else evaluation.sizes
    size = max(sizes) if value.size is None else value.size
    wanted = {
        "teacher": value.teacher,
        "student": value.student,
        "size": size,
        "measure": value.measure,
        "part": value.part,
    }
    rows = data.estimates
    for column, item in wanted.items():
        rows = rows[rows[column] == item]
    rows = rows[rows["coordinate"].isna()]
    if rows.empty:
        return None, 0, size
    row = rows.iloc[0]
    return _estimate(row), int(row["n"]), size


def _estimate(row: pd.Series[Any]) -> Estimate:
    value, error, within = (float(row[column]) for column in ("value", "standard_error", "within"))
    return Estimate(value, error, int(row["seeds"]), row["source"], within)


@dataclass(frozen=True)
class MeasuredTable:
    """All numbers of one part of one measure: a line for each teacher and student, a column for each size."""

    measure: str
    part: str
    sizes: Sequence[int]
    rows: Sequence[tuple[str, str, str, Sequence[str]]]
    main: bool


def measured_tables(data: ReportData) -> list[MeasuredTable]:
    """Every number that is not part of a profile; ``main`` marks errors that figures show, which come first.

    The smoothed score's error has a table for each noise level.
    """
    table = data.estimates
    parts = [data.declarations.part(*names) for names in zip(table["measure"], table["part"], strict=True)]
    scalars = table[
        table["coordinate"].isna() | np.array([part is not None and part.judged for part in parts], dtype=bool)
    ]
    tables = [
        _measured_table(str(measure), str(part), float(rows["coordinate"].iloc[0]), rows, data)
        for (measure, part, _), rows in scalars.groupby(["measure", "part", "coordinate"], sort=False, dropna=False)
    ]
    return sorted(tables, key=lambda table: not table.main)


def _measured_table(measure: str, part: str, level: float, rows: pd.DataFrame, data: ReportData) -> MeasuredTable:
    sizes = sorted({int(size) for size in rows["size"]})
    cells = {(row["teacher"], row["student"], int(row["size"])): row for row in rows.to_dict("records")}
    lines = []
    for teacher in data.experiment.teachers:
        for student in data.radii:
            own = [cells.get((teacher, student, size)) for size in sizes]
            if any(own):
                texts = [format_number(cell["value"], cell["standard_error"]) if cell else MISSING for cell in own]
                lines.append((teacher, data.student_label(student), _seeds(own), texts))
    title = part if math.isnan(level) else f"{part} at σ = {level:g}"
    shown = (data.criterion(teacher) for teacher in data.experiment.teachers)
    main = any(
        (one.measure, one.part) == (measure, part) and (one.sigma == level or math.isnan(one.sigma + level))
        for one in shown
        if one
    )
    return MeasuredTable(measure, title, sizes, lines, main=main)


def _seeds(cells: Sequence[Mapping[Any, Any] | None]) -> str:
    counts = sorted({int(cell["seeds"]) for cell in cells if cell})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def missing_trials(data: ReportData) -> list[str]:
    """Labels of the trials of the experiment that left no records."""
    records = data.run.records
    columns = ("teacher", "student", "seed")
    there = set() if records.empty else set(zip(*(records[column] for column in columns), strict=True))
    return [
        f"{trial.teacher_name} / {trial.student_name} / seed {trial.seed}"
        for trial in data.experiment.trials()
        if (trial.teacher_name, trial.student_name, trial.seed) not in there
    ]


@dataclass(frozen=True)
class Cost:
    """What a student's training cost: parameters, and microseconds for each site and step, teacher's share included.

    Attributes:
        student: its name.
        parameters: adjustable numbers.
        microseconds: mean over seeds on the teacher that is cheapest to draw and to score, with its standard error.
        teacher: that teacher.
    """

    student: str
    parameters: int
    microseconds: Estimate
    teacher: str


def costs(data: ReportData) -> list[Cost]:
    """The cost of every trained student of which the manifest knows it, in order of the radius."""
    found: dict[tuple[str, str], list[float]] = {}
    parameters: dict[str, int] = {}
    for trial in data.run.manifest.get("trials", ()):
        if trial.get("step_seconds") and trial.get("training_sites") and "parameters" in trial:
            spent = 1e6 * trial["step_seconds"] / trial["training_sites"]
            found.setdefault((trial["student"], trial["teacher"]), []).append(spent)
            parameters[trial["student"]] = trial["parameters"]
    result = []
    for student in data.radii:
        own = {teacher: _mean(values) for (name, teacher), values in found.items() if name == student}
        if own:
            teacher = min(own, key=lambda name: own[name].value)
            result.append(Cost(student, parameters[student], own[teacher], teacher))
    return result


def _mean(values: Sequence[float]) -> Estimate:
    mean, count = sum(values) / len(values), len(values)
    if count == 1:
        return Estimate(mean, math.nan)
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, math.sqrt(variance / count), count, "seeds")


def cost_rows(data: ReportData) -> list[tuple[str, str, str, str]]:
    """Lines of the table of costs: student, parameters, cost, and the teacher on which it was measured."""
    return [
        (data.student_label(cost.student), f"{cost.parameters:,}", format_estimate(cost.microseconds), cost.teacher)
        for cost in costs(data)
    ]


def reuse(manifest: Mapping[str, Any]) -> str:
    """How much the run had not to compute, of when it is and what it was computed with; nothing where that is none.

    Example:
        >>> reuse({"reused": {"trainings": 1, "measurements": 4, "oldest": "2026-03-01T12:00:00+00:00",
        ...                   "newest": "2026-03-01T12:30:00+00:00", "computed_with": ["torch 2.6.0"]}})
        'Reused: 1 training and 4 measurements, computed on 2026-03-01 with torch 2.6.0.'
    """
    reused = manifest.get("reused", {})
    counts = [_counted(reused.get(f"{noun}s", 0), noun) for noun in ("training", "measurement")]
    if not any(reused.get(f"{noun}s", 0) for noun in ("training", "measurement")):
        return ""
    first, last = str(reused["oldest"])[:10], str(reused["newest"])[:10]
    when = f"on {first}" if first == last else f"from {first} to {last}"
    elsewhere = f" with {', '.join(reused['computed_with'])}" if reused["computed_with"] else ""
    return f"Reused: {' and '.join(counts)}, computed {when}{elsewhere}."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def renewed(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The trials whose earlier training did not count, with what had changed."""
    return [(item["label"], "; ".join(item["changes"])) for item in manifest.get("renewed", ())]


def skipped_groups(data: ReportData) -> list[tuple[str, str, int, str]]:
    """What was skipped, once for each measure and reason: measure, reason, number of trials, and their labels."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in data.run.skipped:
        groups.setdefault((str(item["measure"]), str(item["reason"])), []).append(str(item["label"]))
    return [(measure, reason, len(labels), ", ".join(labels)) for (measure, reason), labels in groups.items()]


def manifest_rows(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The scalars of a manifest by dotted path; longer parts stand in its full text only."""
    for name, value in manifest.items():
        if isinstance(value, Mapping):
            short = all(not isinstance(item, Mapping | list) for item in value.values())
            if short:
                yield from ((f"{name}.{key}", str(item)) for key, item in value.items())
        elif not isinstance(value, list):
            yield str(name), str(value)
