"""A prediction as text, for the console and for ``print``: the verdict, then why; tables and the rule on demand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from sizetransfer.contracts.quantity import Quantity
from sizetransfer.numerics.averages import number
from sizetransfer.verdict import Verdict

if TYPE_CHECKING:
    from sizetransfer.diagnosis.prediction import Prediction


def text_of(prediction: Prediction, *, tables: bool = False, explain: bool = False) -> str:
    """The prediction in words and numbers.

    Args:
        prediction: what was found.
        tables: also responses, Theorem 1 and errors at every size and noise level.
        explain: also the rule, and where the numbers come from.
    """
    parts = [_head(prediction), _numbers(prediction)]
    if tables:
        parts += [_responses(prediction), _theorem_table(prediction), _errors(prediction)]
    if explain:
        parts += ["\n".join(prediction.notes), prediction.rule]
    more = " and ".join(
        name for name, shown in (("--tables (tables=True)", tables), ("--explain (explain=True)", explain)) if not shown
    )
    return "\n\n".join([*filter(None, parts), *([f"More: {more}."] if more else [])])


# --- the verdict ------------------------------------------------------------------------------------------------------


def _head(prediction: Prediction) -> str:
    sizes = ", ".join(str(row.size) for row in prediction.sigma_needed[1:])
    asked = f", asked at {sizes}" if sizes else ""
    verb = "Trained" if prediction.ready else "Fitted"
    where = f"{verb} at {prediction.symbol} = {prediction.sigma_needed[0].size}{asked}."
    lines = [line for verdict in prediction.verdicts for line in _verdict(prediction, verdict)]
    return "\n".join([*lines, where])


_CLAUSES = re.compile(r"; (?!\d)(?![^(]*\))")
"""Between the clauses of a reason, outside parentheses, and not before the threshold that a number is set against."""


def _verdict(prediction: Prediction, verdict: Verdict) -> Iterator[str]:
    radius = "global" if verdict.radius is None else f"radius {verdict.radius}"
    name = radius if prediction.student is None else f"{verdict.student}, {radius}"
    yield f"{prediction.teacher}, {name}: {verdict.label}"
    clauses = _CLAUSES.split(verdict.reason.rstrip("."))
    yield from (f"  {'why: ' if place == 0 else '     '}{clause}" for place, clause in enumerate(clauses))
    if verdict.word == "undecided" and verdict.what_would_decide:
        yield f"  what would decide it: {'; '.join(verdict.what_would_decide)}"


def _numbers(prediction: Prediction) -> str:
    overall = prediction.overall
    grows = {True: "grows", False: "does not grow", None: "is not known to grow"}
    growth = f"with the size it {grows[overall.sufficient_grows]}. The range R_eps {grows[overall.range_grows]}"
    return "\n".join(
        [
            *_long_range(prediction),
            f"The reverse process has to start at sigma_max: {_starts(prediction)}.",
            f"{_sufficient(prediction)}; {growth}.",
            f"Theorem 1: {_theorem_line(prediction)}.",
        ]
    )


def _sufficient(prediction: Prediction) -> str:
    """The sufficient radius: of the score's error alone, so that the verdict may still be that it is too small."""
    found, tolerance = labelled(prediction.overall.sufficient, kind=True), 100 * prediction.spec.rule.tolerance
    # Without local posteriors the response outside the ball stands for the error.
    how = ", by the response outside it" if prediction.source in ("clean", "sampled") else ""
    which = "clean score" if prediction.source == "clean" else "score"
    return f"Smallest radius whose {which} is within {tolerance:g} % of the exact one{how}: {found}"


def _long_range(prediction: Prediction) -> Iterator[str]:
    """Long-range order that is generated, which is said and not judged."""
    for verdict in prediction.verdicts:
        for training in verdict.trainings:
            largest = max((one.size for one in training.generated), default=0)
            made = [one for one in training.generated if not one.judged and one.size == largest]
            if made:
                name = "the student" if prediction.student else f"radius {verdict.radius}"
                said = ", ".join(f"{one.of} {number(one.ratio, 0.0)}" for one in made)
                source = f"{made[0].source}; said, not judged"
                place = f"{prediction.symbol} = {largest}"
                yield f"Long-range order of {name}, {made[0].name} at {place} over that of the law: {said} ({source})."


def _starts(prediction: Prediction) -> str:
    return ", ".join(
        f"{labelled(row.sigma, kind=True) if row.sigma else 'not known'} at {prediction.symbol} = {row.size}"
        for row in prediction.sigma_needed
    )


def _theorem_line(prediction: Prediction) -> str:
    row = prediction.theorem[-1]
    if row.bound is None and row.budget is None:
        return f"not known. {row.reason}"
    truth = "truth not known" if row.truth is None else f"truth {number(row.truth.upper, 0.0)} ({row.truth.kind})"
    if row.bound is None:
        return f"bound not known, budget {labelled(row.budget, kind=True)} at {prediction.symbol} = {row.size}"
    bound = f"bound {labelled(row.bound, kind=True)}, {truth}"
    return f"{bound} for the {row.subject} at {prediction.symbol} = {row.size}"


# --- tables -----------------------------------------------------------------------------------------------------------


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns below a title."""
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([title, *lines])


def labelled(quantity: Quantity | None, *, kind: bool = False) -> str:
    """A number with its standard error and, if asked for, what it is worth."""
    if quantity is None:
        return "–"
    text = number(quantity.value, quantity.error if quantity.kind == "estimate" else 0.0)
    return f"{text} ({quantity.kind})" if kind else text


_OPTIONAL = ("draws", "certified")


def _responses(prediction: Prediction) -> str:
    columns = [f"R({prediction.spec.epsilon:g})", *(f"covers {share:.4g}" for share in prediction.spec.shares)]
    head = [prediction.symbol, "sigma", *columns, "share outside", "irreducible"]
    counted, certified = (any(getattr(row, name) is not None for row in prediction.rows) for name in _OPTIONAL)
    head += [*(["draws"] if counted else []), "sufficient", *(["certified"] if certified else []), "numbers"]
    rows = [
        (
            row.size,
            row.sigma or "clean",
            *(labelled(cell) for cell in (row.range, *row.covering.values(), row.outside_share, row.irreducible)),
            *([row.draws or "–"] if counted else []),
            labelled(row.sufficient),
            *([labelled(row.certified)] if certified else []),
            row.range.kind,
        )
        for row in prediction.rows
    ]
    pair = f"{prediction.teacher}, {prediction.student or 'no student'}"
    radius = "" if prediction.student is None else f", radius {prediction.radius or 'global'}"
    return table(f"Response of the score: {pair}{radius}", head, rows)


def _theorem_table(prediction: Prediction) -> str:
    reasons = [f"({reason})" for reason in dict.fromkeys(row.reason for row in prediction.theorem if row.reason)]
    if all(row.bound is None and row.budget is None for row in prediction.theorem):
        return f"Theorem 1: not known. {prediction.theorem[0].reason}."
    symbol = prediction.symbol
    head = (symbol, "of the", "bound", "truth", "budget", f"uniform in {symbol}")
    rows = []
    for row in prediction.theorem:
        truth = "–" if row.truth is None else f"{number(row.truth.upper, 0.0)} ({row.truth.kind})"
        uniform = {True: "yes", False: "no", None: "not known"}[row.size_uniform]
        budget = labelled(row.budget, kind=True)
        rows.append((row.size, row.subject or "–", labelled(row.bound, kind=True), truth, budget, uniform))
    title = f"Theorem 1 for the patch {[list(site) for site in prediction.theorem[0].patch]}"
    return "\n".join([table(title, head, rows), *reasons])


def _errors(prediction: Prediction) -> str:
    rows = [
        (
            row.size,
            f"{row.sigma:g}",
            row.against,
            *(labelled(q, kind=True) for q in (row.error, row.locality, row.training)),
        )
        for row in prediction.errors
    ]
    head = (prediction.symbol, "sigma", "against", "relative error", "from locality", "from training")
    return table("Error of the student", head, rows) if rows else ""
