"""A diagnosis of a model on data as text and as data: the word, what it rests on, what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sizetransfer.diagnosis.from_data.text import body_of, plain
from sizetransfer.diagnosis.model.findings import ModelLevel, better, level_json
from sizetransfer.diagnosis.text import table

if TYPE_CHECKING:
    from sizetransfer.diagnosis.joined.diagnosis import ModelOnData, SizeLosses


def text_of(found: ModelOnData, *, tables: bool = False, explain: bool = False) -> str:
    """The word first, then the data, then the model, then what is missing and what would change the word."""
    parts = [
        _word(found),
        f"DATA\n{body_of(found.data, tables=tables)}",
        "MODEL",
        _radius(found),
    ]
    parts += [] if found.units is None else [found.units.text()]
    parts += [_losses(one) for one in found.sizes]
    parts += [_listed("Missing", found.missing), _listed("What would change this", found.would_change), _steps(found)]
    parts += [found.rule] if explain else []
    return "\n\n".join(filter(None, parts))


def _word(found: ModelOnData) -> str:
    lines = [f"{found.model} on {found.data.data}: {found.label}"]
    if found.units is not None and found.units.findings:
        lines += [f"  {finding.text}" for finding in found.units.findings]
        lines.append("  Nothing else is claimed before the model is read in its own units.")
    elif found.verdict is not None:
        lines.append(f"  why: {found.verdict.reason}")
    else:
        lines.append("  why: the model could not be asked")
    return "\n".join(lines)


def _radius(found: ModelOnData) -> str:
    lines = [f"Weights: {note}." for note in found.notes]
    lines.append(found.radius.text().split("\n\n")[0])
    radius = found.radius.radius
    if radius is None:
        lines.append("It reads the whole lattice: no radius is judged, and on a larger lattice it reads more.")
    elif 2 * radius + 1 > found.data.training:
        lines.append(
            f"Its ball holds the lattice of training, L = {found.data.training}: locality is not tested there."
        )
    return "\n".join(lines)


def _losses(one: SizeLosses) -> str:
    radii = [f"r={each.coordinate:g}" for each in one.levels[0].linear]
    rows = [(*_numbers(level), f"{level.limit}{better(level)}") for level in one.levels]
    title = f"L = {one.size}: denoising loss of the model and of linear filters by radius, {one.judged} fields"
    return table(title, ("sigma", "model", *radii, "limit"), rows)


def _numbers(level: ModelLevel) -> Iterator[str]:
    yield f"{level.sigma:.3g}"
    yield f"{level.loss.value:.4g} ± {level.loss.standard_error:.1g}"
    yield from (f"{each.value:.4g}" for each in level.linear)


def _listed(title: str, items: Sequence[str]) -> str:
    return "\n".join([f"{title}:", *(f"- {item}" for item in items)]) if items else ""


def _steps(found: ModelOnData) -> str:
    said = "; ".join(f"{step.name} {step.seconds:.1f} s" for step in found.steps)
    total = math.fsum(step.seconds for step in found.steps)
    failed = [f"Not done: {step.name}. {step.failed}" for step in found.steps if step.failed]
    return "\n".join([f"Processor time, in this order: {said}; {total:.1f} s in all.", *failed])


def json_of(found: ModelOnData) -> dict[str, Any]:
    """The diagnosis as data for JSON."""
    sizes = [
        {
            "size": one.size,
            "fields": one.fields,
            "judged": one.judged,
            "levels": [level_json(level) for level in one.levels],
        }
        for one in found.sizes
    ]
    steps = [
        {"name": step.name, "fields": step.fields, "seconds": step.seconds, "failed": step.failed}
        for step in found.steps
    ]
    data: dict[str, Any] = {
        "model": found.model,
        "word": found.word,
        "label": found.label,
        "verdict": None if found.verdict is None else found.verdict.to_json(),
        "missing": list(found.missing),
        "would_change": list(found.would_change),
        "radius": found.radius.to_json(),
        "units": None if found.units is None else found.units.to_json(),
        "sizes": sizes,
        "notes": list(found.notes),
        "steps": steps,
        "problems": list(found.problems),
        "data": found.data.to_json(),
    }
    return {name: plain(value) for name, value in data.items()}
