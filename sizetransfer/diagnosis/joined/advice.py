"""What a diagnosis of a model does not know, and what would change its word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sizetransfer.diagnosis.joined.diagnosis import ModelOnData


def missing(found: ModelOnData) -> Iterator[str]:
    """What was not looked at, or could not be."""
    if found.units is None:
        yield "the model could not be asked about these fields"
        return
    for sigma in found.units.outside:
        yield f"the score at sigma = {sigma:.4g}, which is outside the model's schedule"
    if found.units.findings:
        yield "everything but the units: radius, loss and sizes are those of another model until it is read as it is"
        return
    done = {one.size for one in found.sizes}
    for one in found.data.sizes:
        if one.fields is None:
            yield f"fields of L = {one.size}: what the model does there was not measured"
        elif one.size not in done:
            yield f"the loss at L = {one.size}, which was not taken"
    if found.data.classes.patterns:
        yield f"filters by class ({found.data.classes.name}): these are the same on every site, easier to be level with"
    yield "what this model generates: the forecast is of the linear filter of its radius, to second order"
    yield "other trainings: one model says nothing of its recipe"


def would_change(found: ModelOnData) -> Iterator[str]:
    """At least one thing, whatever the word."""
    if found.units is not None and found.units.findings:
        yield from (finding.text for finding in found.units.findings)
    elif found.verdict is None:
        yield "conventions by which the model runs on these fields, and says what it returns"
    else:
        yield from found.verdict.what_would_decide
        yield from _by_word(found)
    yield from (fault.text for fault in found.radius.faults)


def _by_word(found: ModelOnData) -> Iterator[str]:
    largest = max(found.data.sizes[-1].size, found.data.training)
    if found.word == "not learned":
        yield "more training, or another noise schedule: a linear filter that sees no more knows more"
    elif found.word == "radius-limited":
        enough = _enough(found)
        yield f"a radius of {enough}" if enough is not None else "a larger radius than any filter that was fitted"
    elif found.word == "degrades with size":
        yield "training at a larger size, or a model without what depends on the size"
    elif found.word == "transfers":
        yield f"sizes beyond L = {largest}, other noise levels, or what generation shows: sample the model and compare"


def _enough(found: ModelOnData) -> int | None:
    """The smallest radius whose filter is as good as the best one, at every noise level that is judged."""
    allowed = found.data.question.verdict.locality**2
    levels = [level for level in found.sizes[0].levels if level.sigma <= found.data.deviation * 1.01]
    radii: set[int] | None = None
    for level in levels:
        best = min(one.value for one in level.linear)
        good = {
            int(one.coordinate)
            for one in level.linear
            if one.coordinate < float("inf") and one.value - best <= allowed * (1 - best)
        }
        radii = good if radii is None else radii & good
    return min(radii) if radii else None
