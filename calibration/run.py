"""Calibrate the verdict on Gaussian fields, where the truth is known in closed form; print what it gets wrong.

python calibration/run.py --cases 600 --workers 2
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
from cases import SOURCES, draw

from sizetransfer.contracts.distributions import clopper_pearson
from sizetransfer.verdict import WORDS, judge

CONFIDENCE = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--power", type=int, default=40, help="deserving students that power is measured with")
    arguments = parser.parse_args()
    started = time.monotonic()
    with ProcessPoolExecutor(arguments.workers) as pool:
        seeds = range(arguments.seed, arguments.seed + arguments.cases)
        found = list(pool.map(verdict_of, seeds, chunksize=8))
        confusion(found)
        false_transfers(found)
        found_transfers(found)
        deserving = [row["seed"] for row in found if row["deserves"]][: arguments.power]
        power(list(pool.map(power_of, deserving)))
    print(f"{time.monotonic() - started:.0f} s")


def verdict_of(seed):
    case = draw(seed)
    found = judge(case.evidence())
    return {
        "seed": seed,
        "word": found.word,
        "label": found.label,
        "reason": found.reason,
        "transfers": case.transfers,
        "deserves": case.deserves,
        "kind": case.kind,
        "source": case.source,
        "ratios": case.ratios,
    }


def confusion(found):
    print("\nWords by truth (local marginals at the larger size within 10 %)")
    print(f"{'':20s}{'transfers':>12s}{'does not':>12s}")
    for word in WORDS:
        counts = [sum(row["word"] == word and row["transfers"] == truth for row in found) for truth in (True, False)]
        print(f"{word:20s}{counts[0]:12d}{counts[1]:12d}")
    print(f"{'all':20s}{sum(row['transfers'] for row in found):12d}{sum(not row['transfers'] for row in found):12d}")


def false_transfers(found):
    print("\nFalse transfers among students that do not, and the upper limit at 95 % (Clopper and Pearson)")
    groups = {
        "known": ("closed form", "rollout", "forecast"),
        **{source: (source,) for source in SOURCES},
        "all": SOURCES,
    }
    for source, members in groups.items():
        rows = [row for row in found if not row["transfers"] and row["source"] in members]
        wrong = [row for row in rows if row["word"] == "transfers"]
        upper = clopper_pearson(len(wrong), len(rows), 1 - CONFIDENCE)[1]
        print(f"  generated: {source:12s} {len(wrong)} of {len(rows)}, below {100 * upper:.2f} %")
        if source == "all":
            for row in wrong:
                shares = ", ".join(f"{name} {value:.3f}" for name, value in row["ratios"].items())
                print(f"    case {row['seed']}, {row['kind']}, {row['label']}: {shares}")


def found_transfers(found):
    print("\nShare of those that transfer that is found")
    for name, rows in (
        ("local marginals within 10 %", [row for row in found if row["transfers"]]),
        ("all conditions of the rule hold of the population", [row for row in found if row["deserves"]]),
    ):
        words = Counter(row["word"] for row in rows)
        print(f"  {name}: {words['transfers']} of {len(rows)}; {dict(words)}")


FIELDS = (8, 16, 32, 64, 128)
SEEDS = (3, 5, 8)


def power_of(seed):
    """Whether a deserving student is found with so many fields, and its recipe with so many seeds of 16 fields."""
    case = draw(seed)
    by_fields = [judge(replace(case, fields=n, generated=4 * n).evidence()).word == "transfers" for n in FIELDS]
    return by_fields, [recipe_word(case, count) == "transfers" for count in SEEDS]


def recipe_word(case, count):
    cells = [replace(case, fields=16, generated=64, seed=1000 * case.seed + i + 1).evidence() for i in range(count)]
    trainings = tuple(replace(cell.trainings[0], seed=i) for i, cell in enumerate(cells))
    return judge(replace(cells[0], trainings=trainings)).recipe.word


def power(found):
    fields, seeds = (np.array([row[i] for row in found]) for i in (0, 1))
    print(f"\nPower: share found of {len(found)} students of which all conditions hold")
    print(
        "  fields  " + "  ".join(f"{n}: {100 * share:.0f} %" for n, share in zip(FIELDS, fields.mean(0), strict=True))
    )
    print(
        "  seeds of 16 fields  "
        + "  ".join(f"{n}: {100 * share:.0f} %" for n, share in zip(SEEDS, seeds.mean(0), strict=True))
    )


if __name__ == "__main__":
    main()
