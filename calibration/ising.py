"""Calibrate the verdict on the noisy Ising model, as far as the exact solver reaches: 6 x 6 to 9 x 9.

python calibration/ising.py --cases 120

Students are Bethe's message passing (`ising_students.py`) with radius, coupling and gain drawn at random. The truth is
a rollout of many fields: the student transfers when its site variance and nearest-neighbour covariance at the larger
size are within 10 %; students within three standard errors of that limit are told apart. The evidence is what a run
measures: errors against the exact posterior on few fields, linear references, and a rollout of 512 other fields, the
student's own forecast, or neither.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from functools import cache

import numpy as np
import torch
from ising_students import MessageStudent

import sizetransfer as st
from sizetransfer.contracts.distributions import clopper_pearson
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import draw_fields
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import NoiseSchedule
from sizetransfer.measures.linear_references import LinearReferencesSpec
from sizetransfer.measures.second_order_forecast import SecondOrderForecastSpec
from sizetransfer.numerics.statistics import pooled, root_ratio
from sizetransfer.numerics.statistics import ratio as pooled_ratio
from sizetransfer.scores.sampling import SamplerSpec, sample
from sizetransfer.verdict import (
    WORDS,
    CellEvidence,
    Consequence,
    LawChange,
    Reference,
    ScoreError,
    TrainingEvidence,
    judge,
)

TRAINED, LARGER = 6, 9
LEVELS = (0.5, 0.7, 1.0)
COUPLINGS = (0.2, 0.3, 0.4, 0.5, 0.7)
TARGETS, TRUE, MADE, LAW = 64, 1024, 512, 2048
NOISE = NoiseSchedule(sigma_min=0.2, sigma_max=6.0)
SAMPLER = SamplerSpec(steps=96, noise=NOISE)
TOLERANCE = 0.1
SOURCES = ("rollout", "forecast", "none")


@cache
def teacher(ratio):
    return st.teacher("ising", beta_over_critical=ratio)


@cache
def targets(ratio, size, level):
    """Noisy fields with their exact scores."""
    one = teacher(ratio)
    generator = stream("calibration", repr(ratio), size, repr(level))
    clean = draw_fields(one, TARGETS, size, generator=generator)
    sigma = clean.x.new_full((TARGETS,), level)
    x, _ = perturb(clean.x, sigma, generator=generator)
    return x, one.smoothed_score(x, sigma, clean.context).detach(), clean.context


@cache
def references(ratio, radius):
    """Errors of references from as many fields as have exact scores; the law, which needs none, from many."""
    errors = LinearReferencesSpec(sigmas=LEVELS, fields=TARGETS, radii=(1, 2), fitted=TRAINED, noise=NOISE)
    law = errors.model_copy(update={"sigmas": (), "fields": LAW})
    found = {}
    for size in (TRAINED, LARGER):
        for spec in (errors, law):
            for one in spec.measure(teacher(ratio), MessageStudent(radius, 0.0), size, sigma=0.05, seed=0):
                found[size, one.part, one.coordinate if one.coordinate == one.coordinate else None] = number(one)
    return found


def number(measurement, exponent=0.5, fields=""):
    if measurement.sums is not None:
        return pooled(*measurement.sums, fields=fields, exponent=exponent)
    return measurement.quantity


def moments(x, v):
    """Of every field: mean square and mean product of neighbours, without the noise that is left."""
    square = x.square().flatten(1).mean(1) - v
    nearest = torch.stack([(x * x.roll(1, axis)).flatten(1).mean(1) for axis in (2, 3)]).mean(0)
    return torch.stack([square, nearest], 1).double().numpy()


@cache
def exact_moments(ratio):
    """Of clean fields at the larger size; the law is known far better than anything that is generated."""
    fields = draw_fields(teacher(ratio), 8192, LARGER, generator=stream("calibration", "exact", repr(ratio)))
    return moments(fields.x, 0.0).mean(0)


def made(student, ratio, count, name):
    """Moments of fields that the student generates, from exact noisy fields."""
    clean = draw_fields(teacher(ratio), count, LARGER, generator=stream("calibration", name, "start", repr(ratio)))
    generator = stream("calibration", name, "noise", repr(ratio))
    x, _ = perturb(clean.x, clean.x.new_full((count,), NOISE.sigma_max), generator=generator)
    with torch.no_grad():
        end = sample(student, x, SAMPLER.sigmas(), context=clean.context, generator=generator)
    return moments(end, NOISE.sigma_min**2)


def evidence(student, ratio, fields, source, case):
    errors, held = [], references(ratio, student.radius)
    generator = np.random.default_rng([case, 3])
    for level in LEVELS:
        for size in (TRAINED, LARGER):
            x, exact, context = targets(ratio, size, level)
            rows = torch.from_numpy(generator.permutation(TARGETS)[:fields])
            with torch.no_grad():
                found = student(x[rows], x.new_full((fields,), level), context)
            wrong = (found - exact[rows]).square().flatten(1).mean(1)
            sums = wrong.tolist(), exact[rows].square().flatten(1).mean(1).tolist()
            errors.append(ScoreError(level, size, root_ratio(*sums, fields=f"{size} {level}")))
    judged = [
        Reference(
            level,
            TRAINED,
            held[TRAINED, "null", level],
            held[TRAINED, "linear", level],
            held[TRAINED, "best", level],
            held.get((TRAINED, "irreducible", level)),
        )
        for level in LEVELS
    ]
    names = ("site_variance", "nearest_covariance", "zero_mode")
    change = LawChange(LARGER, *(quotient(held[LARGER, name, None], held[TRAINED, name, None]) for name in names))
    best = [held[LARGER, f"best_of_radius_{name}", None] for name in ("site_variance", "nearest")]
    return CellEvidence(
        teacher=f"ising {ratio}",
        student=f"radius {student.radius}",
        radius=student.radius,
        training_size=TRAINED,
        sizes=(TRAINED, LARGER),
        trainings=(TrainingEvidence(0, tuple(errors), tuple(judged), (), consequences(student, ratio, source, case)),),
        site_deviation=1.0 + 1e-9,
        best_of_radius=(consequence("second-order forecast", *best),),
        law=(change,),
        correlation_squared=held[LARGER, "correlation_length_squared", None],
    )


def quotient(one, other):
    value = one.value / other.value
    error = abs(value) * np.hypot(one.error / one.value, other.error / other.value)
    return Quantity.estimated(value, float(error), min(one.n, other.n))


def consequence(source, variance, nearest):
    return Consequence(LARGER, source, variance, nearest, {}, NOISE.sigma_max, NOISE.sigma_max)


def consequences(student, ratio, source, case):
    if source == "none":
        return ()
    if source == "forecast":
        spec = SecondOrderForecastSpec(noise=NOISE, fields=128, law_fields=LAW, batch=64)
        found = {one.part: one for one in spec.measure(teacher(ratio), student, LARGER, sigma=0.05, seed=case)}
        numbers = [number(found[f"forecast_{name}"]) for name in ("site_variance", "nearest")]
        return (consequence("second-order forecast", *numbers),)
    rows, exact = made(student, ratio, MADE, f"evidence {case}"), exact_moments(ratio)
    pairs = zip(rows.T, exact, strict=True)
    numbers = [pooled_ratio(column.tolist(), [float(value)] * MADE) for column, value in pairs]
    return (consequence("rollout", *numbers),)


def drawn(case):
    generator = np.random.default_rng([case, 9])
    ratio, radius = float(generator.choice(COUPLINGS)), int(generator.choice([1, 2]))
    coupling = teacher(ratio).spec.coupling * float(generator.choice([0, 0.5, 0.8, 1, 1, 1, 1.2]))
    gain = float(generator.choice([1, 1, 1, 0.85, 0.93, 0.97, 1.03, 1.07, 1.15]))
    return (
        ratio,
        MessageStudent(radius, coupling, gain),
        int(generator.choice([16, 32, 64])),
        str(generator.choice(SOURCES)),
    )


def verdict_of(case):
    ratio, student, fields, source = drawn(case)
    rows, exact = made(student, ratio, TRUE, f"truth {case}"), exact_moments(ratio)
    off, error = rows.mean(0) / exact - 1, rows.std(0) / np.sqrt(TRUE) / exact
    outside = abs(off) - TOLERANCE
    truth = "no" if (outside > 3 * error).any() else "yes" if (outside < -3 * error).all() else "near the limit"
    found = judge(evidence(student, ratio, fields, source, case))
    return {
        "case": case,
        "ratio": ratio,
        "radius": student.radius,
        "coupling": student.coupling,
        "gain": student.gain,
        "truth": truth,
        "word": found.word,
        "label": found.label,
        "source": source,
        "off": off.round(3).tolist(),
        "reason": found.reason,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    arguments = parser.parse_args()
    started = time.monotonic()
    found = [verdict_of(case) for case in range(arguments.seed, arguments.seed + arguments.cases)]
    truths = ("yes", "near the limit", "no")
    print(f"{'transfers:':20s}" + "".join(f"{truth:>16s}" for truth in truths))
    counts = Counter((row["word"], row["truth"]) for row in found)
    for word in WORDS:
        print(f"{word:20s}" + "".join(f"{counts[word, truth]:16d}" for truth in truths))
    for source in (*SOURCES, "all"):
        rows = [row for row in found if row["truth"] == "no" and source in (row["source"], "all")]
        wrong = [row for row in rows if row["word"] == "transfers"]
        upper = clopper_pearson(len(wrong), len(rows), 0.05)[1] if rows else 1.0
        print(
            f"false transfers, generated: {source:10s} {len(wrong)} of {len(rows)}, below {100 * upper:.2f} % at 95 %"
        )
        for row in wrong if source == "all" else []:
            print("  ", {name: value for name, value in row.items() if name != "reason"})
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
