r"""Diagnose blind: from samples alone, beside the diagnosis of the teacher that drew them, and beside the truth.

python calibration/data.py --seeds 2 --out blind.md

Fields of a Gaussian, flow, phi4 or Ising teacher are drawn at the training size L. `diagnose(data=...)` sees these
arrays and nothing else; `diagnose(teacher)` sees the teacher. Both judge the best score of a radius, run at a
larger size, mostly 2 L.

The *truth* is what the population's filter generates there. A linear score takes second moments to second moments,
:math:`dP_k/d\ln v = v (2 a_k P_k - 1)`, whatever the law, so that it follows from the law's exact spectra at both
sizes: known for Gaussian fields, else from many other fields, with their error. It transfers when its site variance and
its nearest-neighbour covariance at the larger size are within 10 % of the law's; within three standard errors of that
limit it is told apart. A *false transfers* is one whose truth is no.

The law that a diagnosis forecasts is held against the exact one, in units of the error that it states: near a
critical point S(k) changes with the size at equal k, and the forecast cannot know.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import sizetransfer as st
from sizetransfer.contracts.distributions import clopper_pearson
from sizetransfer.contracts.oracle import draw_fields
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import NoiseSchedule
from sizetransfer.diagnosis.from_data.laws import NAMES, generated, marginals, numbers
from sizetransfer.diagnosis.law import estimated_law, exact_law
from sizetransfer.verdict import WORDS

FIELDS = 256
TRUE = 512
"""Fields of each size by which the truth is known, where it is not exact."""
TOLERANCE = 0.1
LOCAL = NAMES[:2]
BEYOND = "beyond its reach"
TRUTHS = ("yes", "near the limit", "no")


@dataclass(frozen=True)
class Known:
    """A teacher, the training size, and the radii that are judged.

    Attributes:
        kind: of the teacher.
        options: of its specification, by name.
        size: of training.
        larger: where the model shall run.
        radii: judged together.
    """

    kind: str
    options: tuple[tuple[str, object], ...]
    size: int
    larger: int
    radii: tuple[int, ...]

    @property
    def name(self):
        return " ".join(
            [self.kind, *(f"{value}" if key == "preset" else f"{key} {value}" for key, value in self.options)]
        )


def known(kind, size, radii, larger=None, **options):
    return Known(kind, tuple(options.items()), size, larger or 2 * size, radii)


TEACHERS = (
    known("gaussian", 32, (2, 4), mass=0.5),
    known("ising", 16, (2, 4), beta_over_critical=0.5),
    known("flow", 16, (2, 4), preset="short-range-simple"),
    known("phi4", 16, (2, 4), preset="symmetric"),
    known("gaussian", 32, (4, 8), mass=0.3),
    known("ising", 16, (2, 4), beta_over_critical=0.7),
    known("flow", 24, (4, 8), preset="medium-range"),
    known("phi4", 16, (2, 4), preset="double-well"),
    known("gaussian", 32, (4, 8), mass=0.1),
    known("ising", 16, (2, 4), beta_over_critical=0.8),
    known("flow", 24, (4, 8), preset="long-range-stress"),
    known("phi4", 16, (2, 4), mass2=-0.9, quartic=1.0),
    known("gaussian", 32, (4, 8), mass=0.03),
    known("ising", 16, (2, 4), beta_over_critical=0.9),
    known("phi4", 16, (2, 4), mass2=-1.1, quartic=1.0),
    known("ising", 16, (2, 4), beta_over_critical=0.95),
    known("gaussian", 16, (2, 4), dim=1, mass=0.5),
    known("ising", 16, (2, 4), beta_over_critical=1.0),
    known("phi4", 16, (2, 4), mass2=-1.27, quartic=1.0),
    known("ising", 32, (4, 8), beta_over_critical=0.8),
    known("phi4", 32, (4, 8), mass2=-1.1, quartic=1.0),
    known("flow", 16, (2, 4), preset="short-range-structured"),
    known("ising", 6, (1, 2), 9, beta_over_critical=0.3),
    known("ising", 6, (1, 2), 9, beta_over_critical=0.7),
)


@cache
def teacher(case):
    return st.teacher(case.kind, **dict(case.options)).double()


def drawn(case, size, count, name):
    return draw_fields(teacher(case), count, size, generator=stream("calibration", "data", name, case.name, size))


# --- the truth --------------------------------------------------------------------------------------------------------


@cache
def laws(case):
    """The law at both sizes: exact, or of many fields."""
    return tuple(
        exact_law(teacher(case), size) or estimated_law(drawn(case, size, TRUE, "truth"), size)
        for size in (case.size, case.larger)
    )


@cache
def truth(case, radius):
    """What the population's filter of the training size generates, and the best of the larger one, over the law."""
    small, large = laws(case)
    noise = NoiseSchedule(sigma_min=0.05 * small.site_deviation, sigma_max=large.sigma_needed)
    return tuple(of_laws(generated(radius, noise), one, large) for one in (small, large))


def of_laws(function, *found):
    """Numbers of laws, with errors where these are estimated."""
    if all(one.exact for one in found):
        values = function(*(one.moments for one in found))
        return [st.Quantity(float(value)) for value in values]
    return numbers(function, *(one.versions for one in found), names=[str(one.size) for one in found])


def transfers(case, radius):
    """Whether the local marginals that "your model" generates are within the tolerance: yes, near the limit, or no."""
    made = truth(case, radius)[0][: len(LOCAL)]
    outside = [(abs(one.value - 1) - TOLERANCE, 3 * one.error) for one in made]
    if any(off > error for off, error in outside):
        return "no"
    return "yes" if all(off < -error for off, error in outside) else "near the limit"


# --- what is said -----------------------------------------------------------------------------------------------------


@cache
def said_of_teacher(case):
    """The word of every radius, by the teacher."""
    try:
        found = st.diagnose(teacher(case), sizes=(case.size, case.larger), radii=case.radii)
    except st.SpecError:
        # The exact posterior of spins ends near 12 x 12.
        return dict.fromkeys(case.radii, BEYOND)
    return {radius: verdict.word for radius, verdict in zip(case.radii, found.verdicts, strict=True)}


def rows_of(case, seed):
    """One row for every radius, and how far the forecast of the law is off in units of its error."""
    x = drawn(case, case.size, FIELDS, f"data {seed}").x.numpy()
    started = time.process_time()
    found = st.diagnose(data=x, sizes=(case.larger,), radii=case.radii)
    seconds = time.process_time() - started
    for one in found.radii:
        yield {
            "case": case,
            "seed": seed,
            "radius": one.radius,
            "data": one.verdict.word,
            "reason": one.verdict.reason,
            "teacher": said_of_teacher(case)[one.radius],
            "truth": transfers(case, one.radius),
            "true": truth(case, one.radius)[0],
            "forecast": next((made.ratios for made in one.made if made.fitted == case.size), None),
            "law": next(one.law for one in found.sizes if one.size == case.larger),
            "flags": [name for name in ("long_ranged", "capped") if getattr(found.fitted, name)],
            "seconds": seconds,
        }


# --- what is printed --------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=len(TEACHERS), help="teachers, from the first on")
    parser.add_argument("--seed", type=int, default=0, help="of the first data")
    parser.add_argument("--seeds", type=int, default=1, help="data sets of each teacher")
    parser.add_argument("--only", default="", help="teachers whose name has this in it")
    parser.add_argument("--out", type=Path, help="also write what is printed to this file")
    arguments = parser.parse_args()
    started, rows = time.monotonic(), []
    print(*heading(), sep="\n", flush=True)
    for case in [one for one in TEACHERS[: arguments.cases] if arguments.only in one.name]:
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            rows += list(rows_of(case, seed))
            print(*[line_of(row) for row in rows if (row["case"], row["seed"]) == (case, seed)], sep="\n", flush=True)
            if arguments.out is not None:
                lines = [*report(rows), "", *heading(), *map(line_of, rows), ""]
                arguments.out.write_text("\n".join(lines), encoding="utf-8")
    print("", *report(rows), f"{time.monotonic() - started:.0f} s", sep="\n")


def report(rows):
    return [*false_transfers(rows), "", *confusion(rows), "", *forecasts(rows)]


def heading():
    columns = ("teacher", "L", "R", "seed", "by the data", "by the teacher", "truth", "generated, forecast", "s")
    return line(columns), line(["---"] * len(columns))


def line(cells):
    return f"| {' | '.join(map(str, cells))} |"


def line_of(row):
    case = row["case"]
    made = [f"{number.value:.3f}" for number in row["true"][: len(LOCAL)]]
    said = ["-"] * len(LOCAL) if row["forecast"] is None else [shown(row["forecast"][name]) for name in LOCAL]
    pairs = ", ".join(f"{true} ({forecast})" for true, forecast in zip(made, said, strict=True))
    sizes = f"{case.size} to {case.larger}"
    words = (row["data"], row["teacher"], row["truth"])
    return line((case.name, sizes, row["radius"], row["seed"], *words, pairs, f"{row['seconds']:.1f}"))


def shown(number):
    return f"{number.value:.3f} ± {number.error:.3f}"


def limit(wrong, rows):
    upper = clopper_pearson(wrong, rows, 0.05)[1] if rows else 1.0
    return f"{wrong} of {rows}, below {100 * upper:.1f} % at 95 %"


def false_transfers(rows):
    """First what must not be: transfers that do not, or that the teacher denies."""
    against = [row for row in rows if row["truth"] == "no"]
    denied = [row for row in rows if row["teacher"] in {"degrades with size", "radius-limited"}]
    for name, group in (("what is generated is outside the tolerance", against), ("the teacher denies it", denied)):
        wrong = [row for row in group if row["data"] == "transfers"]
        yield f"False *transfers* where {name}: {limit(len(wrong), len(group))}"
        yield from (f"  {line_of(row)} {row['reason']}" for row in wrong)


def confusion(rows):
    """Words by truth, and by the word of the teacher."""
    yield line(("by the data", *TRUTHS, *(f"teacher: {word}" for word in (*WORDS, BEYOND))))
    yield line(["---"] * (2 + len(TRUTHS) + len(WORDS)))
    truths, words = (Counter((row["data"], row[other]) for row in rows) for other in ("truth", "teacher"))
    for word in WORDS:
        yield line((word, *(truths[word, one] for one in TRUTHS), *(words[word, one] for one in (*WORDS, BEYOND))))


def forecasts(rows):
    """Of every data set, how far the law that is forecast is off: relative, and in units of its error."""
    yield line(("teacher", "L", "seed", *NAMES, "flagged"))
    yield line(["---"] * (4 + len(NAMES)))
    for case, seed in dict.fromkeys((row["case"], row["seed"]) for row in rows):
        row = next(one for one in rows if (one["case"], one["seed"]) == (case, seed))
        sizes = f"{case.size} to {case.larger}"
        yield line((case.name, sizes, seed, *errors_of_law(case, row["law"]), ", ".join(row["flags"]) or "no"))


def errors_of_law(case, law):
    if law is None:
        return ["not forecast"] * len(NAMES)
    exact = of_laws(marginals, laws(case)[1])
    return [error(law[name], number) for name, number in zip(NAMES, exact, strict=True)]


def error(forecast, exact):
    """Relative error of a forecast, and the same in units of its standard error."""
    off = forecast.value - exact.value
    return f"{100 * off / exact.value:+.1f} % ({off / np.hypot(forecast.error, exact.error):+.1f})"


if __name__ == "__main__":
    main()
