"""Runs every check on every mutant and writes which check kills which: ``python tests/verification/kill_matrix.py``."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
MATRIX = ROOT / "docs" / "_static" / "kill-matrix.csv"
COLUMNS = ("family", "mutant", "defect", "killed by")
sys.path.insert(0, str(ROOT / "tests" / "support"))


def row(family: str, position: int) -> dict[str, str]:
    """One mutant with the checks that kill it."""
    import torch

    from sizetransfer_verification.conformance import checks, run_checks

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    mutant = mutants(family)[position]
    core = {check.id for check in checks(family, "core")}
    outcomes = list(run_checks(mutant.subject(), level="core").outcomes)
    # A check of level full may be the one that is meant for the mutant.
    beyond = tuple(name for name in mutant.killers if name not in core)
    outcomes += run_checks(mutant.subject(), only=beyond).outcomes if beyond else ()
    killers = [outcome.id for outcome in outcomes if outcome.wrong]
    return dict(zip(COLUMNS, (family, mutant.name, mutant.defect, " ".join(killers)), strict=True))


def mutants(family: str) -> tuple:
    import student_mutants
    import teacher_mutants

    return {"student": student_mutants, "teacher": teacher_mutants}[family].MUTANTS


def places() -> Iterator[tuple[str, int]]:
    for family in ("teacher", "student"):
        for position in range(len(mutants(family))):
            yield family, position


def main() -> None:
    families, positions = zip(*places(), strict=True)
    with ProcessPoolExecutor(max_workers=2) as pool:
        rows = list(pool.map(row, families, positions))
    with MATRIX.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    survivors = [found["mutant"] for found in rows if not found["killed by"]]
    sys.stdout.write(f"{len(rows)} mutants, {len(survivors)} survive: {', '.join(survivors) or 'none'}\n")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
