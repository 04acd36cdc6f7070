r"""How often the error bars of a diagnosis from data hold the truth, over many data sets of one known law.

python calibration/coverage.py --cases 100

Every data set is new fields of a Gaussian law, of which everything is known in closed form: the law's own numbers at
the larger size, what the filter of the training size generates there, and the covariance ranges r_10 of score and
denoiser, from the exact filters of every radius. Counted is how often the interval that is stated, by Student's t at
95 %, holds them. r_10 is counted where it is above one: below, it is called one, without an error.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import cache

import numpy as np

import sizetransfer as st
from sizetransfer.contracts.distributions import clopper_pearson, student_quantile
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import NoiseSchedule
from sizetransfer.diagnosis.from_data.laws import NAMES, generated, marginals
from sizetransfer.diagnosis.from_data.ranges import crossing
from sizetransfer.diagnosis.law import exact_law

ALPHA = 0.025
"""Of each side."""
RADII = tuple(range(8))


@dataclass(frozen=True)
class Study:
    """A law, and how much of it is seen.

    Attributes:
        mass: of the Gaussian field.
        size: of training; the larger size is twice that.
        fields: in every data set.
        radius: of the filter.
        sigmas: noise levels at which r_10 is asked for.
    """

    mass: float
    size: int
    fields: int
    radius: int
    sigmas: tuple[float, ...]


STUDIES = (
    Study(0.3, 16, 64, 2, (0.2, 0.5, 1.0, 2.0)),
    Study(0.1, 32, 128, 4, (0.2, 0.5, 1.0, 2.0)),
)


@cache
def teacher(mass):
    return st.teacher("gaussian", mass=mass).double()


@cache
def truths(study):
    """Numbers by name."""
    small, large = (exact_law(teacher(study.mass), size) for size in (study.size, 2 * study.size))
    noise = NoiseSchedule(sigma_min=0.05 * small.site_deviation, sigma_max=large.sigma_needed)
    made = generated(study.radius, noise)(small.moments, large.moments)
    found = {f"law, {name}": value for name, value in zip(NAMES, marginals(large.moments), strict=True)}
    found |= {f"generated, {name}": value for name, value in zip(NAMES, made, strict=True)}
    for sigma in study.sigmas:
        found |= {f"r_10, {name}, {sigma:g}": value for name, value in exact_ranges(small, sigma).items()}
    return found


def exact_ranges(law, sigma):
    v, variance = sigma**2, law.site_deviation**2
    losses = [v - v * v * float(law.moments.filter(radius).power(v)) for radius in (*RADII, None)]
    excess = np.array(losses[:-1]) - losses[-1]
    scales = {"score": v - losses[-1], "denoiser": variance - losses[-1]}
    return {name: crossing(RADII, excess / scale) for name, scale in scales.items()}


def intervals(study, seed):
    """What one data set says, by name: value and interval."""
    generator = stream("calibration", "coverage", repr(study), seed)
    x = teacher(study.mass).sample(study.fields, study.size, generator=generator).x
    found = st.diagnose(data=x, radii=(study.radius,), sizes=(2 * study.size,), sigmas=study.sigmas)
    law = found.sizes[-1].law
    if law is None:
        return {}
    made = next(one.ratios for one in found.radii[0].made if one.fitted == study.size)
    numbers = {f"law, {name}": law[name] for name in NAMES} | {f"generated, {name}": made[name] for name in NAMES}
    said = {name: (one.value, one.lower(ALPHA), one.upper(ALPHA)) for name, one in numbers.items()}
    for level in found.ranges:
        for name, one in (("score", level.score), ("denoiser", level.denoiser)):
            half = student_quantile(ALPHA, one.n - 1) * one.standard_error
            said[f"r_10, {name}, {level.sigma:g}"] = (one.value, one.value - half, one.value + half)
    return said


def covered(study, cases, seed):
    """By name: how many intervals hold the truth, of how many, and the values."""
    held, values = defaultdict(list), defaultdict(list)
    for case in range(seed, seed + cases):
        for name, (value, lower, upper) in intervals(study, case).items():
            if name.startswith("r_10") and not (truths(study)[name] > 1 and math.isfinite(upper - lower)):
                continue
            held[name].append(lower <= truths(study)[name] <= upper)
            values[name].append(value)
    return held, values


def table(study, cases, seed):
    held, values = covered(study, cases, seed)
    what = f"mass {study.mass:g}, {study.fields} fields of {study.size} x {study.size}, R = {study.radius}"
    yield f"\n{what}: intervals of 95 % that hold the truth\n"
    yield "| | truth | mean | spread | held | share, with limits at 95 % |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, hits in held.items():
        low, high = clopper_pearson(sum(hits), len(hits), ALPHA)
        value = np.array(values[name])
        share = f"{100 * sum(hits) / len(hits):.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        numbers = f"{truths(study)[name]:.4g} | {value.mean():.4g} | {value.std():.2g}"
        yield f"| {name} | {numbers} | {sum(hits)} of {len(hits)} | {share} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100, help="data sets of each study")
    parser.add_argument("--seed", type=int, default=0, help="of the first data set")
    arguments = parser.parse_args()
    started = time.monotonic()
    for study in STUDIES:
        print(*table(study, arguments.cases, arguments.seed), sep="\n", flush=True)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
