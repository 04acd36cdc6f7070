"""A student that was never trained has not learned: of every built-in teacher, by a real run, and no other word."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch

import sizetransfer as st
from sizetransfer.runs.trials import Experiment

CNN = {"kind": "cnn", "blocks": 0, "width": 4}
MESSAGES = {"kind": "message-passing", "depth": 1, "width": 4}
CLEAN = {"clean-score": {"kind": "clean-score", "fields": 16}}
SMOOTHED = {"smoothed-score": {"kind": "smoothed-score", "fields": 16, "sigmas": [0.5]}}


@dataclass(frozen=True)
class Case:
    """A teacher, who is asked to score it, at which sizes and by which measures."""

    teacher: dict[str, object]
    measures: dict[str, object] = field(default_factory=lambda: CLEAN)
    sizes: tuple[int, int] = (8, 12)
    student: dict[str, object] = field(default_factory=lambda: CNN)


CASES = {
    "gaussian": Case({"kind": "gaussian", "dim": 2, "mass": 0.5}, CLEAN | SMOOTHED),
    "near-critical": Case({"kind": "gaussian", "dim": 2, "preset": "near-critical"}, CLEAN | SMOOTHED),
    "gaussian-crystal": Case({"kind": "gaussian", "preset": "harmonic-crystal"}, CLEAN | SMOOTHED),
    **{
        name: Case({"kind": "flow", "preset": name}, sizes=(16, 24))
        for name in ("short-range-simple", "short-range-structured", "medium-range", "long-range-stress")
    },
    # The law has no density: there is no clean score.
    "ising": Case({"kind": "ising"}, SMOOTHED, (6, 8)),
    "phi4": Case({"kind": "phi4", "dim": 2}, sizes=(6, 8)),
    **{
        f"hard-valid-{name}": Case({"kind": "hard-valid", "preset": name}, sizes=(6, 8))
        for name in ("local", "medium", "wide")
    },
    **{
        f"graph-{name}": Case({"kind": "gaussian-graph", "preset": name}, CLEAN | SMOOTHED, (32, 40), MESSAGES)
        for name in ("disordered-plane", "disordered-volume", "harmonic-crystal")
    },
}


def experiment(case: Case, steps: int) -> Experiment:
    sigmas = [0.5] if "smoothed-score" in case.measures else []
    references = {"kind": "linear-references", "fields": 32, "radii": [2], "sigmas": sigmas}
    return st.experiment(
        {
            "name": "untrained",
            "teachers": {"teacher": case.teacher},
            "students": {"student": case.student},
            "seeds": [0],
            "training": {"size": case.sizes[0], "steps": steps, "batch": 4, "objective": "denoising"},
            "evaluation": {
                "sizes": list(case.sizes),
                "measures": {**case.measures, "linear-references": references},
            },
        }
    )


def judged(case: Case, out, steps: int = 0):
    torch.set_num_threads(1)
    finished = st.run(experiment(case, steps), out, device="cpu", executor="serial", report=False)
    assert not finished.failures
    assert not finished.skipped
    (verdict,) = finished.verdicts
    return verdict


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_untrained_student_has_not_learned(name, tmp_path):
    verdict = judged(CASES[name], tmp_path / "run")
    (training,) = verdict.trainings
    assert (verdict.word, training.word) == ("not learned", "not learned"), verdict.reason
    # Every level has the references that the word rests on, and they are better than the student at one of them.
    levels = training.levels
    assert all(0 <= level.linear <= level.null < 1.1 for level in levels)
    assert any(level.linear < 0.9 * level.error for level in levels) or all(level.skill < 0.5 for level in levels)


BEST = {
    "gaussian": {"kind": "best-linear", "radius": 2, "fields": 64},
    # No filter comes near the best score of spins.
    "ising": {"kind": "optimal-local-ising", "radius": 2},
}


@pytest.mark.parametrize("name", BEST)
def test_the_best_score_of_a_radius_is_not_said_not_to_have_learned(name, tmp_path):
    """The same run with a student that needs no steps: it is the run that can tell."""
    assert judged(replace(CASES[name], student=BEST[name]), tmp_path / "run").word != "not learned"
