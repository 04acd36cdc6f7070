"""The conformance suite on hard-valid teachers: healthy ones pass, and plausible defects are caught by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hard_valid_zoo import spec

from sizetransfer.contracts.oracle import Exactness
from sizetransfer.systems.hard_valid import HardValidTeacher
from sizetransfer_verification.conformance import check_teacher

# Checks that say nothing of this law: it has no oracle of noisy fields, no symmetry and no latent map of fields alone.
RUN = 20


@pytest.mark.parametrize("name", ["local", "two channels"])
def test_hard_valid_teachers_pass_every_check_that_applies(name):
    report = check_teacher(spec(name), level="core")
    wrong = [str(outcome) for outcome in report.outcomes if outcome.wrong]
    assert not wrong, "\n\n".join(wrong)
    passed = [outcome.id for outcome in report.outcomes if outcome.status == "passed"]
    assert len(passed) >= RUN


class Louder(HardValidTeacher):
    """A score that is a tenth too large."""

    def score(self, sample):
        return 1.1 * super().score(sample)


class AnotherGain(HardValidTeacher):
    """A sampler whose fields are a tenth too large."""

    def sample(self, batch, size, *, generator):
        sample = super().sample(batch, size, generator=generator)
        return sample.with_x(1.1 * sample.x)


class Curled(HardValidTeacher):
    """A score field that is no gradient."""

    def score(self, sample):
        return super().score(sample) + 1e-3 * sample.x.roll(1, -1) * sample.context.mask


class SingleInside(HardValidTeacher):
    """A score computed in single precision."""

    def score(self, sample):
        return super().score(sample).float().to(sample.x)


class NarrowLabels(HardValidTeacher):
    """Labels of half the bits."""

    def sample(self, batch, size, *, generator):
        sample = super().sample(batch, size, generator=generator)
        return replace(sample, labels={name: label.int() for name, label in sample.labels.items()})


class SharedPorts(HardValidTeacher):
    """All rows of a batch have the ports and types of the first, and its field too."""

    def sample(self, batch, size, *, generator):
        sample = super().sample(1, size, generator=generator)
        context = replace(
            sample.context,
            condition=sample.context.condition.expand(batch, -1, -1, -1, -1),
            mask=sample.context.mask.expand(batch, -1, -1, -1, -1),
        )
        labels = {name: label.expand(batch, -1, -1, -1) for name, label in sample.labels.items()}
        return replace(sample, x=sample.x.expand(batch, -1, -1, -1, -1), context=context, labels=labels)


class Misspelt(HardValidTeacher):
    """Declares the exactness of a method that is not there."""

    def __init__(self, given):
        super().__init__(given)
        self.exactness = {**self.exactness, "log_probability_motifs": Exactness()}


MUTANTS = {
    Louder: "teacher/score-is-the-gradient-of-the-log-density",
    AnotherGain: "teacher/samples-follow-the-score",
    Curled: "teacher/score-jacobian-is-symmetric",
    SingleInside: "teacher/score-is-differentiable",
    NarrowLabels: "teacher/samples-have-the-declared-shape",
    SharedPorts: "teacher/samples-differ-with-the-generator",
    Misspelt: "teacher/exactness-is-declared",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_defects_are_caught(mutant):
    report = check_teacher(lambda: mutant(spec("local")), only=(MUTANTS[mutant],))
    assert [outcome.status for outcome in report.outcomes] == ["failed"]


def test_zeros_of_empty_sites_survive_every_oracle():
    teacher = spec("local").build().double()
    fields = teacher.sample(2, 4, generator=torch.Generator().manual_seed(1))
    assert (teacher.score(fields)[~fields.context.mask] == 0).all()
