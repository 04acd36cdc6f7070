"""Wrong units of a model are found and named with what mends them; right ones, of a poor model too, are not accused."""

from __future__ import annotations

import json

import pytest
import torch
from ideal_models import Ideal
from torch import nn

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.diagnosis.model import check_units
from sizetransfer.students.wrapped import nearest_timestep, wrap_module

DEVIATION = 0.81
TABLE = 1 / (1 + torch.logspace(-2, 2, 100, dtype=torch.float64) ** 2)


class Scaled:
    """The Gaussian teacher in units in which its fields have the deviation .81."""

    def __init__(self) -> None:
        self.own = st.teacher("gaussian", dim=2, mass=0.5).double()
        self.factor = DEVIATION / self.own.field.sigma_data
        self.field = self.own.field.model_copy(update={"sigma_data": DEVIATION})

    def smoothed_score(self, x, sigma, context):
        return self.own.smoothed_score(x / self.factor, sigma / self.factor, context) / self.factor

    def sample(self, batch, size):
        return self.factor * self.own.sample(batch, size, generator=stream("units", size)).x


TEACHER = Scaled()
FIELDS = TEACHER.sample(64, 24)


def ideal(process: str, predicts: str, **options: object) -> Ideal:
    return Ideal(process, predicts, TEACHER, unit=DEVIATION, table=TABLE, **options)


VP = {"process": "vp", "timestep": TABLE, "scale": DEVIATION}
FAULTS = {
    "scale left out": (ideal("ve", "noise"), {"predicts": "noise"}, "scale"),
    "scale left out, VP": (ideal("vp", "noise"), {**VP, "scale": 1.0}, "scale"),
    "scale of another data set": (ideal("ve", "score"), {"scale": 2 * DEVIATION}, "scale"),
    "VP read as VE": (
        ideal("vp", "noise"),
        {**VP, "process": "ve", "inputs": "x, timestep", "predicts": "noise"},
        "process",
    ),
    "VE read as VP": (ideal("ve", "clean"), {**VP, "inputs": "unit_x, sigma", "predicts": "clean"}, "process"),
    "v read as noise": (ideal("vp", "v"), VP, "prediction"),
    "noise read as clean": (ideal("ve", "noise"), {"predicts": "clean", "scale": DEVIATION}, "prediction"),
    "noise read as score": (ideal("ve", "noise"), {"predicts": "score", "scale": DEVIATION}, "prediction"),
    "score read as noise": (ideal("ve", "score"), {"predicts": "noise", "scale": DEVIATION}, "prediction"),
    "v read as preconditioned": (ideal("edm", "v"), {"process": "edm", "scale": DEVIATION}, "prediction"),
    "sigma for its logarithm": (
        ideal("edm", "preconditioned"),
        {"process": "edm", "inputs": "scaled_x, sigma", "scale": DEVIATION},
        "noise level",
    ),
    "a step late": (ideal("vp", "noise", late=1), VP, "time step"),
    "two steps early": (ideal("vp", "noise", late=-2), VP, "time step"),
    "scale and prediction": (ideal("ve", "noise"), {"predicts": "clean"}, "prediction and scale"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_every_fault_is_named_and_mended(case: str) -> None:
    module, conventions, fault = FAULTS[case]
    report = check_units(wrap_module(module, field=TEACHER.field, **conventions), FIELDS)
    assert [finding.fault for finding in report.findings] == [fault], report.text()
    assert f"Wrong {fault}" in report.text()
    x = FIELDS[:8] + 0.7 * normal(FIELDS[:8].shape, generator=stream("mended"), like=FIELDS)
    context = Context(Lattice((24, 24), periodic=True))
    exact = TEACHER.smoothed_score(x, x.new_full((8,), 0.7), context)
    mended = report.mended(x, x.new_full((8,), 0.7), context)
    # A scale that is a percent off changes the score by about as much; a fault that is left, by a quarter and more.
    assert ((mended - exact).square().sum() / exact.square().sum()).sqrt() < 0.05


def test_the_factor_is_that_of_the_data() -> None:
    report = check_units(wrap_module(ideal("ve", "noise"), field=TEACHER.field, predicts="noise"), FIELDS)
    (finding,) = report.findings
    # The flat minimum of a noisy loss: one percent of 64 fields (measured: .2 to .7 percent).
    assert finding.factor == pytest.approx(DEVIATION, rel=0.02)
    assert "the deviation of these fields" in finding.text
    (late,) = check_units(wrap_module(ideal("vp", "noise", late=1), field=TEACHER.field, **VP), FIELDS).findings
    assert late.factor == 1


HEALTHY = {
    "VE": (ideal("ve", "noise"), {"predicts": "noise", "scale": DEVIATION}),
    "VP": (ideal("vp", "noise"), VP),
    "EDM": (ideal("edm", "preconditioned"), {"process": "edm", "scale": DEVIATION}),
    "VE, ten percent off": (ideal("ve", "score", error=0.1), {"scale": DEVIATION}),
    "VP, ten percent off": (ideal("vp", "noise", error=0.1), VP),
    "EDM, ten percent off": (ideal("edm", "v", error=0.1), {"process": "edm", "predicts": "v", "scale": DEVIATION}),
    "scale a percent off": (ideal("ve", "noise"), {"predicts": "noise", "scale": 1.01 * DEVIATION}),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_right_units_are_not_accused(case: str) -> None:
    module, conventions = HEALTHY[case]
    report = check_units(wrap_module(module, field=TEACHER.field, **conventions), FIELDS)
    assert not report.findings, report.text()
    assert report.excess < 0.15


def test_the_identities_hold_of_an_exact_score_and_of_no_other() -> None:
    right = check_units(wrap_module(ideal("ve", "noise"), field=TEACHER.field, predicts="noise", scale=0.81), FIELDS)
    for level in right.levels:
        for one in (level.stein, level.calibration):
            assert abs(one.value - 1) < 5 * one.standard_error
            assert one.n == len(FIELDS)
    wrong = check_units(wrap_module(ideal("ve", "noise"), field=TEACHER.field, predicts="noise"), FIELDS)
    assert any(abs(level.stein.value - 1) > 5 * level.stein.standard_error for level in wrong.levels)


def test_a_model_that_has_not_learned_is_called_so_and_not_accused() -> None:
    module = ideal("ve", "score", error=0.7)
    report = check_units(wrap_module(module, field=TEACHER.field, scale=DEVIATION), FIELDS)
    assert not report.findings
    assert "not trained enough" in report.text()


def test_a_network_that_answers_nothing_is_not_read_as_a_filter_of_one_site() -> None:
    class Untrained(nn.Module):
        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return 0.01 * x

    report = check_units(wrap_module(Untrained(), field=TEACHER.field, **VP), FIELDS)
    assert not report.findings, report.text()
    assert "not trained enough" in report.text()


class Vector:
    """Two channels of different ranges."""

    field = st.FieldInfo(dim=2, channels=2, sigma_data=1.0)

    def __init__(self) -> None:
        self.parts = [st.teacher("gaussian", dim=2, mass=mass).double() for mass in (0.2, 2.0)]

    def smoothed_score(self, x, sigma, context):
        return torch.cat([p.smoothed_score(x[:, c : c + 1], sigma, context) for c, p in enumerate(self.parts)], 1)

    def sample(self, batch, size):
        return torch.cat([p.sample(batch, size, generator=stream("vector", c)).x for c, p in enumerate(self.parts)], 1)


def test_transposed_channels_are_named() -> None:
    teacher = Vector()
    module = Ideal("ve", "score", teacher, order=(1, 0))
    report = check_units(wrap_module(module, field=teacher.field), teacher.sample(64, 16))
    assert [(finding.fault, finding.change) for finding in report.findings] == [("channels", {"channel_order": (1, 0)})]


def test_a_mean_that_was_taken_away_is_named() -> None:
    module = ideal("ve", "score")
    report = check_units(wrap_module(module, field=TEACHER.field, scale=DEVIATION), FIELDS + 2)
    (finding,) = report.findings
    assert finding.fault == "shift"
    assert finding.change["shift"][0] == pytest.approx(2, abs=0.1)


def test_levels_outside_are_said() -> None:
    student = wrap_module(ideal("vp", "noise"), field=TEACHER.field, **VP)
    report = check_units(student, FIELDS, (0.5, 1.0, 500.0))
    assert report.outside == (500.0,)
    assert "Outside the model's schedule: sigma = 500" in report.text()
    with pytest.raises(SpecError, match="knows none of the noise levels"):
        check_units(student, FIELDS, (500.0,))


def test_the_report_is_plain_data() -> None:
    report = check_units(wrap_module(ideal("vp", "noise", late=1), field=TEACHER.field, **VP), FIELDS)
    data = json.loads(json.dumps(report.to_json()))
    assert data["findings"][0]["factor"] == 1
    assert data["time_offset"]["n"] == len(FIELDS)
    assert nearest_timestep(TABLE).offset == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (FIELDS[:4], "at least 8"),
        (FIELDS[:, :, 0], "1 axes|2 axes"),
        (torch.full_like(FIELDS, torch.nan), "not"),
        (torch.zeros_like(FIELDS), r"constant channels \[0\]"),
        (FIELDS.repeat(1, 2, 1, 1), "1 channels"),
    ],
)
def test_fields_that_cannot_be_used_are_refused(fields: torch.Tensor, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_units(wrap_module(ideal("ve", "noise"), field=TEACHER.field, predicts="noise"), fields)
