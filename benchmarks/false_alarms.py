"""How often the statistical checks of teachers call a right teacher wrong: the largest mean over many seeds.

    python benchmarks/false_alarms.py --seeds 200 gaussian '{kind: gaussian, dim: 1}' flow:medium-range

Counts of draws and lattices are small, where means are least normal: the worst case of the suite's Student budget.
"""

from __future__ import annotations

import argparse
import time

import torch
import yaml

from sizetransfer_verification.conformance import Case, Evidence, NotApplicableError, TeacherSubject, checks

DRAWS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--largest", type=int, default=16, help="sites of the lattice, at most")
    parser.add_argument("teachers", nargs="+")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.teachers:
        started = time.process_time()
        largest, alarms, comparisons = examine(name, arguments.seeds, arguments.largest)
        worst = max(largest, key=lambda check: largest[check])
        seconds = time.process_time() - started
        print(  # noqa: T201
            f"{name}: {alarms} alarms in {comparisons} comparisons over {arguments.seeds} seeds; largest mean "
            f"{largest[worst]:.2f} standard errors ({worst}); {seconds:.0f} s CPU",
            flush=True,
        )


def examine(name: str, seeds: int, sites: int) -> tuple[dict[str, float], int, int]:
    """Largest mean in standard errors by check, failures, and comparisons."""
    subject = TeacherSubject(yaml.safe_load(name) if name.startswith("{") else name)
    largest: dict[str, float] = {}
    alarms = comparisons = 0
    for seed in range(seeds):
        subject.reseed(seed)
        for check in checks("teacher"):
            if not check.statistical or not all(need.holds(subject) for need in check.needs):
                continue
            evidence = Evidence()
            try:
                check.function(subject, _case(subject, min(check.space.largest, sites), seed), evidence)
            except NotApplicableError:
                pass
            except Exception as error:
                alarms += 1
                print(f"{name}, seed {seed}, {check.id}: {error}", flush=True)  # noqa: T201
            largest[check.id] = max(largest.get(check.id, 0.0), evidence.largest_deviation)
            comparisons += evidence.statistical
    return largest, alarms, comparisons


def _case(subject: TeacherSubject, largest: int, seed: int) -> Case:
    sizes = [size for size, sites in subject.accepted if sites <= largest]
    return Case(size=(sizes or [subject.accepted[0][0]])[-1], batch=DRAWS, noise=1.0, seed=seed)


if __name__ == "__main__":
    main()
