r"""The verdict: does a student of radius R trained on one size transfer to larger ones?

Symbols: :math:`e(R, L)` is the relative RMSE of the clean score (paper eq. (16)) of a student of receptive radius
R on a lattice of L sites along each axis (of a graph: of N sites), the mean over seeds; :math:`L_*` is the largest
size of the evaluation; :math:`s` are standard errors, and two numbers differ by
:math:`|a - b| / \sqrt{s_a^2 + s_b^2}` combined ones.

A teacher that has no clean score is judged by the relative RMSE of its smoothed score, at every noise level of that
measure; the worst verdict counts, because reverse diffusion asks for all of them. An experiment that measures neither
has no verdicts.

A claim (*fails*, *radius-limited*) needs a relative effect beyond its threshold **and** a difference of more than
``significance`` combined standard errors. An effect without the significance is a doubt, and a doubt that no
established claim overrides ends as *undecided*. :func:`describe_rule` says the whole rule in words.

Standard errors are those of :mod:`sizetransfer.averages`.

The teacher's response outside the radius is independent evidence, because no student takes part in it. For white
inputs, a share q of the squared response out of reach costs a relative error of about :math:`\sqrt q`; without it
:math:`e` would fall to :math:`\sqrt{e^2 - q}`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from sizetransfer.averages import Estimate, estimates, in_standard_errors
from sizetransfer.domain import LATTICE_WORDS, SizeWords, size_words

if TYPE_CHECKING:
    from sizetransfer.trials import Experiment, VerdictRule

VerdictName = Literal["transfers", "radius-limited", "fails", "undecided"]


def measure_name(experiment: Experiment, kind: str) -> str | None:
    """The experiment's own name of its first measure of this kind."""
    return next((name for name, spec in experiment.evaluation.measures.items() if spec.kind == kind), None)


_ERRORS: Mapping[str, str] = {"clean-score": "clean score", "smoothed-score": "smoothed score"}
"""Measures whose part ``relative_rmse`` the rule judges, by kind; the first that a teacher has."""


@dataclass(frozen=True)
class Criterion:
    """The error that a verdict rests on.

    Attributes:
        measure: the measure's name in the experiment.
        kind: ``clean-score`` or ``smoothed-score``.
        sigma: noise level of the smoothed score; NaN for the clean one.
    """

    measure: str
    kind: str
    sigma: float = math.nan

    def __str__(self) -> str:
        """The score, with the noise level of a smoothed one."""
        return self.score if math.isnan(self.sigma) else f"{self.score} at σ = {self.sigma:g}"

    @property
    def score(self) -> str:
        """Which score: ``clean score`` or ``smoothed score``."""
        return _ERRORS[self.kind]

    def rows(self, table: pd.DataFrame, teacher: str) -> pd.DataFrame:
        """Those of the estimates that hold this error of the teacher's students."""
        own = (table["measure"] == self.measure) & (table["part"] == "relative_rmse") & (table["teacher"] == teacher)
        return table[
            own & (table["coordinate"].isna() if math.isnan(self.sigma) else table["coordinate"] == self.sigma)
        ]


def criteria(table: pd.DataFrame, experiment: Experiment, teacher: str) -> list[Criterion]:
    """The errors by which students of a teacher are judged: one, or one for each noise level; none if none is measured.

    Args:
        table: averages over seeds, of :func:`estimates`.
        experiment: names of measures.
        teacher: its name.
    """
    names = {kind: measure_name(experiment, kind) for kind in _ERRORS}
    taken = {kind: name for kind, name in names.items() if name is not None}
    rows = table[(table["teacher"] == teacher) & (table["part"] == "relative_rmse")]
    for kind, name in taken.items():
        own = rows[rows["measure"] == name]
        if len(own):
            levels = sorted(own["coordinate"].dropna().unique()) if kind == "smoothed-score" else []
            return [Criterion(name, kind, float(level)) for level in levels] or [Criterion(name, kind)]
    # Nothing is there yet: what is missing is the first measure.
    return [Criterion(name, kind) for kind, name in taken.items()][:1]


def radii(records: pd.DataFrame, experiment: Experiment) -> dict[str, int | None]:
    """Receptive radius of every student that left records, smallest first; ``None`` (global) last."""
    found: dict[str, int | None] = {}
    for student in experiment.students:
        own = [] if records.empty else list(records.loc[records["student"] == student, "radius"])
        if own:
            found[student] = None if pd.isna(own[0]) else int(own[0])
    return dict(sorted(found.items(), key=lambda item: reach(item[1])))


def reach(radius: int | None) -> float:
    """The radius as a number to order by: a global student sees farther than any other."""
    return math.inf if radius is None else float(radius)


@dataclass(frozen=True)
class Verdict:
    """What became of one student of one teacher, and the numbers that this rests on.

    Attributes:
        teacher, student: names in the experiment.
        radius: receptive radius; ``None`` for a global student, or for one that left no records.
        verdict: the verdict.
        reason: why, in a sentence with the numbers.
        criterion: the error that it rests on.
        size: the largest size of the evaluation.
        error: that error at this size.
        baseline_size: the training size where it was measured, otherwise the smallest size.
        baseline_error: relative RMSE there.
        growth: relative change of the error from ``baseline_size`` to ``size``.
        best_student, best_error: the student of a larger radius with the lowest error at ``size``.
        outside_share: share of the teacher's squared response outside the radius.
        agrees: whether that share supports the verdict; ``None`` where it says nothing about it.
        evidence: the same in a sentence.
    """

    teacher: str
    student: str
    radius: int | None
    verdict: VerdictName
    reason: str
    size: int
    criterion: Criterion | None = None
    error: Estimate | None = None
    baseline_size: int | None = None
    baseline_error: Estimate | None = None
    growth: float = math.nan
    best_student: str | None = None
    best_error: Estimate | None = None
    outside_share: Estimate | None = None
    agrees: bool | None = None
    evidence: str = "it was not measured"


def describe_rule(
    rule: VerdictRule, *, words: SizeWords = LATTICE_WORDS, kinds: Collection[str] = ("clean-score",)
) -> str:
    """The rule in words, with its thresholds; one paragraph a line.

    Args:
        rule: the thresholds.
        words: how sizes are called.
        kinds: kinds of the criteria in use.
    """
    size = words.symbol
    significance = f"more than {rule.significance:g} combined standard errors"
    among = " Larger radii are those of students of the same kind." if rule.compare == "kind" else ""
    scores = " or, of a teacher that has none, of the ".join(name for kind, name in _ERRORS.items() if kind in kinds)
    levels = (
        " The smoothed score is judged at each noise level of its measure, and the worst verdict counts: fails, "
        "radius-limited, undecided, transfers; among equals the one of the largest error."
    )
    return f"""\
e(R, {size}) is the relative RMSE of the {scores} of the student of radius R at the size {size} ({words.counts}), the \
mean over seeds; {size}* is the largest size; a global student counts as larger than every radius.{among}\
{levels if "smoothed-score" in kinds else ""}
fails: even the lowest e at {size}* among this and the larger radii exceeds {rule.failure:g}, by {significance}; or e \
rises from the training size (the smallest size, where that was not measured) to {size}* by more than \
{100 * rule.growth:g} % and by {significance}.
radius-limited: otherwise, if a larger radius lowers e at {size}* by more than {100 * rule.improvement:g} % and by \
{significance}.
transfers: otherwise, if all of these numbers are there and none of the thresholds is crossed.
undecided: otherwise: a number is missing, or a threshold is crossed by less than the standard errors require.
Standard errors are those of the mean over seeds, and never less than those over evaluation fields leave of it, since \
few seeds may agree by chance. Combined means the root of the sum of squares.
The clean response outside the radius takes no part in the verdict. It agrees with it if the error that it accounts \
for, e − √(e² − share), is more than {100 * rule.improvement:g} % of e for a radius-limited student, and is not for \
one that transfers. A failure may have causes that it does not see."""


def verdicts(records: pd.DataFrame, experiment: Experiment) -> list[Verdict]:
    """Judge every student of every teacher by the experiment's rule.

    Args:
        records: rows of :class:`sizetransfer.records.Record`, of all seeds; may be incomplete or empty.
        experiment: names, sizes and thresholds.

    Returns:
        One verdict for each teacher and student of the experiment, teachers in its order, radii ascending; none if
        the experiment measures no error of the score.
    """
    table = estimates(records)
    known = radii(records, experiment)
    students = [*known, *(name for name in experiment.students if name not in known)]
    shares = _lookup(table[(table["measure"] == measure_name(experiment, "jacobian")) & (table["part"] == _SHARE)])
    found = []
    for teacher in experiment.teachers:
        errors = {one: _lookup(one.rows(table, teacher)) for one in criteria(table, experiment, teacher)}
        for student in students if errors else ():
            cases = [_Case(experiment, teacher, student, known, one, errors[one], shares) for one in errors]
            found.append(min(map(_judge, cases), key=_worst_first))
    return found


def verdicts_as_data(records: pd.DataFrame, experiment: Experiment) -> dict[str, Any]:
    """The verdicts as JSON-compatible data: what they are, by which thresholds, and how many records they rest on."""
    found = [asdict(verdict) for verdict in verdicts(records, experiment)]
    return {
        "experiment": experiment.name,
        "rule": experiment.verdict.to_json(),
        "records": len(records),
        "verdicts": _without_nan(found),
    }


def _without_nan(data: Any) -> Any:
    """The data with numbers that JSON lacks replaced by ``None``."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): _without_nan(value) for key, value in data.items()}
    return [_without_nan(value) for value in data] if isinstance(data, list | tuple) else data


_SHARE = "outside_share"
_WORST_FIRST: tuple[VerdictName, ...] = ("fails", "radius-limited", "undecided", "transfers")


def _worst_first(verdict: Verdict) -> tuple[int, float]:
    error = verdict.error.value if verdict.error else math.nan
    return _WORST_FIRST.index(verdict.verdict), -error if math.isfinite(error) else math.inf


def words_of(experiment: Experiment) -> SizeWords:
    """How the experiment's sizes and distances are called."""
    return size_words(teacher.geometry for teacher in experiment.teachers.values())


def regime(verdicts: Iterable[Verdict]) -> str:
    """One word for a teacher, from the verdicts of its students in order of their radius.

    ``fails`` if the largest radius does; ``radius-limited`` if a smaller one is, or fails where a larger one does not;
    ``undecided`` if any is; else ``transfers``.
    """
    found = [verdict.verdict for verdict in verdicts]
    if found[-1] == "fails":
        return "fails"
    if "radius-limited" in found or "fails" in found:
        return "radius-limited"
    return "undecided" if "undecided" in found else "transfers"


_Numbers = Mapping[tuple[str, str, int], Estimate]


def _lookup(rows: pd.DataFrame) -> _Numbers:
    return {
        (str(row["teacher"]), str(row["student"]), int(row["size"])): Estimate(
            float(row["value"]),
            float(row["standard_error"]),
            int(row["seeds"]),
            row["source"],
            float(row["within"]),
        )
        for row in rows.to_dict("records")
    }


@dataclass(frozen=True)
class _Claim:
    """Whether an effect is there: beyond its threshold and significant, beyond it only, or not."""

    holds: Literal["yes", "unclear", "no"]
    text: str

    @classmethod
    def of(cls, effect: float, threshold: float, difference: float, rule: VerdictRule, text: str) -> _Claim:
        if not effect > threshold:
            return cls("no", text)
        needed = f"{rule.significance:g} are needed"
        if difference > rule.significance:
            return cls("yes", f"{text} ({difference:.3g} combined standard errors)")
        if math.isnan(difference):
            return cls("unclear", f"{text}, without a standard error")
        return cls("unclear", f"{text}, but only by {difference:.1f} combined standard errors; {needed}")


@dataclass(frozen=True)
class _Case:
    """One student of one teacher, with the numbers of all."""

    experiment: Experiment
    teacher: str
    student: str
    radii: Mapping[str, int | None]
    criterion: Criterion
    errors: _Numbers
    shares: _Numbers

    @property
    def rule(self) -> VerdictRule:
        return self.experiment.verdict

    @property
    def symbol(self) -> str:
        return words_of(self.experiment).symbol

    @property
    def size(self) -> int:
        return max(self.experiment.evaluation.sizes_of(self.criterion.measure))

    @property
    def baseline_size(self) -> int | None:
        sizes = sorted(size for teacher, student, size in self.errors if (teacher, student) == self.pair)
        training = self.experiment.training
        train_size = training.size if training.steps else None
        smaller = [size for size in sizes if size < self.size]
        return train_size if train_size in smaller else next(iter(smaller), None)

    @property
    def pair(self) -> tuple[str, str]:
        return self.teacher, self.student

    def error(self, size: int | None, student: str | None = None) -> Estimate | None:
        return self.errors.get((self.teacher, student or self.student, size if size is not None else -1))

    def larger(self) -> list[str]:
        own = reach(self.radii[self.student])
        return [student for student, radius in self.radii.items() if reach(radius) > own and self._compared(student)]

    def _compared(self, student: str) -> bool:
        """Whether the rule holds this case's student against another one."""
        students = self.experiment.students
        return self.rule.compare == "all" or students[student].kind == students[self.student].kind

    def larger_errors(self) -> dict[str, Estimate]:
        """Errors at the largest size of the students of larger radius that have one, lowest first."""
        found = {student: self.error(self.size, student) for student in self.larger()}
        there = {student: error for student, error in found.items() if error and math.isfinite(error.value)}
        return dict(sorted(there.items(), key=lambda item: item[1].value))


def _judge(case: _Case) -> Verdict:
    error = case.error(case.size)
    if case.student not in case.radii or error is None or not math.isfinite(error.value):
        state = "not measured" if error is None else "not a finite number"
        return _verdict(case, "undecided", f"the error at {case.symbol} = {case.size} is {state}")
    failing = [_fails_everywhere(case, error), _grows(case, error)]
    limited = _improvable(case, error)
    failures = [claim.text for claim in failing if claim.holds == "yes"]
    if failures:
        return _verdict(case, "fails", "; ".join(failures))
    if limited.holds == "yes":
        return _verdict(case, "radius-limited", limited.text)
    doubts = [claim.text for claim in (*failing, limited) if claim.holds == "unclear"] + _gaps(case, error)
    if doubts:
        return _verdict(case, "undecided", "; ".join(doubts))
    return _verdict(case, "transfers", f"{failing[1].text}; {limited.text}")


def _fails_everywhere(case: _Case, error: Estimate) -> _Claim:
    lowest = min([error, *case.larger_errors().values()], key=lambda estimate: estimate.value)
    limit = case.rule.failure
    among = "of this and the larger radii" if case.larger() else "of the largest radius"
    return _Claim.of(
        lowest.value,
        limit,
        in_standard_errors(lowest.value - limit, lowest.judged_error),
        case.rule,
        f"the lowest error {among} at {case.symbol} = {case.size}, {lowest.value:.3g}, exceeds {limit:g}",
    )


def _grows(case: _Case, error: Estimate) -> _Claim:
    before = case.error(case.baseline_size)
    if before is None or not math.isfinite(before.value):
        return _Claim("no", "")
    growth = _relative_change(before.value, error.value)
    change = f"{round(100 * growth, 1) + 0.0:+.1f} %"
    text = f"the error changes by {change} from {case.symbol} = {case.baseline_size} to {case.size}"
    return _Claim.of(growth, case.rule.growth, error.standard_errors_from(before), case.rule, text)


def _improvable(case: _Case, error: Estimate) -> _Claim:
    claims = [
        _Claim.of(
            -_relative_change(error.value, other.value),
            case.rule.improvement,
            error.standard_errors_from(other),
            case.rule,
            f"{_named(case, student)} lowers the error by {-100 * _relative_change(error.value, other.value):.1f} %",
        )
        for student, other in case.larger_errors().items()
    ]
    for holds in ("yes", "unclear"):
        for claim in claims:
            if claim.holds == holds:
                return claim
    if not claims:
        return _Claim("no", "no larger radius was tested")
    return _Claim("no", f"no larger radius lowers the error by more than {100 * case.rule.improvement:g} %")


def _gaps(case: _Case, error: Estimate) -> list[str]:
    """What is missing for the verdict that the student transfers."""
    gaps = []
    before = case.error(case.baseline_size)
    if case.baseline_size is None:
        gaps.append(f"the error was measured at {case.symbol} = {case.size} alone, so transfer was not tested")
    elif before is None or not math.isfinite(before.value):
        gaps.append(f"the error at {case.symbol} = {case.baseline_size} is not a finite number")
    elif math.isnan(error.standard_error) or math.isnan(before.standard_error):
        gaps.append("the error has no standard error")
    there = case.larger_errors()
    where = f"{case.symbol} = {case.size}"
    gaps += [f"{_named(case, name)} has no error at {where}" for name in case.larger() if name not in there]
    return gaps


def _named(case: _Case, student: str) -> str:
    radius = case.radii[student]
    text = "the global student" if radius is None else f"R = {radius}"
    return text if list(case.radii.values()).count(radius) == 1 else f"{student} ({text})"


def _relative_change(before: float, after: float) -> float:
    if before > 0:
        return (after - before) / before
    return math.inf if after > before else 0.0


def _verdict(case: _Case, name: VerdictName, reason: str) -> Verdict:
    error, before = case.error(case.size), case.error(case.baseline_size)
    best = next(iter(case.larger_errors().items()), (None, None)) if case.student in case.radii else (None, None)
    share = _outside_share(case)
    clean = case.criterion.kind == "clean-score"
    agrees, evidence = _evidence(name, error if clean else None, share, case.rule)
    return Verdict(
        teacher=case.teacher,
        student=case.student,
        radius=case.radii.get(case.student),
        verdict=name,
        reason=reason,
        size=case.size,
        criterion=case.criterion,
        error=error,
        baseline_size=case.baseline_size,
        baseline_error=before,
        growth=_relative_change(before.value, error.value) if error and before else math.nan,
        best_student=best[0],
        best_error=best[1],
        outside_share=share,
        agrees=agrees,
        evidence=evidence,
    )


def _outside_share(case: _Case) -> Estimate | None:
    """The share at the largest size at which it was measured."""
    sizes = [size for teacher, student, size in case.shares if (teacher, student) == case.pair]
    return case.shares[*case.pair, max(sizes)] if sizes else None


def _evidence(
    name: VerdictName, error: Estimate | None, share: Estimate | None, rule: VerdictRule
) -> tuple[bool | None, str]:
    if share is None:
        return None, "it was not measured"
    if error is None or not (error.value > 0 and math.isfinite(share.value)):
        return None, "it cannot be set against the error"
    within_reach = math.sqrt(max(0.0, error.value**2 - share.value))
    accounts_for = 1 - within_reach / error.value
    text = f"it accounts for {100 * accounts_for:.0f} % of the error"
    beyond = accounts_for > rule.improvement
    agrees = {"radius-limited": beyond, "transfers": not beyond, "fails": True if beyond else None}.get(name)
    return agrees, text
