"""From files of samples of two sizes to words: of Gaussian fields, whose truth is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from data_files import gaussian_fields

import sizetransfer as st
from sizetransfer.contracts.errors import SizetransferError
from sizetransfer.runs.preflight import plan

SIZES, ROWS = (16, 32), 512
LINEAR = {"kind": "best-linear", "fields": 256}


def experiment(students, **measures):
    data = {"kind": "dataset", "files": [f"L{size}.npy" for size in SIZES], "boundary": "periodic", "layout": "BHW"}
    return {
        "name": "samples",
        "teachers": {"data": {**data, "split": {"held_out": 0.5}}},
        "students": students,
        "training": {"size": 16, "steps": 5, "batch": 8, "noise": {"sigma_min": 0.1, "sigma_max": 4.0}},
        "evaluation": {"sizes": list(SIZES), "measures": measures},
    }


LOSS = {"kind": "denoising-loss", "fields": 128, "sigmas": [0.2, 0.5]}
LAW = {"kind": "linear-references", "fields": 256, "radii": [4]}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write fields of a mass at both sizes into the working directory."""
    monkeypatch.chdir(tmp_path)

    def written(mass):
        for size in SIZES:
            np.save(f"L{size}.npy", gaussian_fields(ROWS, size, mass=mass))
        return tmp_path

    return written


def words(run):
    return {verdict.student: verdict for verdict in run.verdicts}


@pytest.mark.slow
def test_a_filter_of_enough_radius_transfers_and_a_network_of_five_steps_has_not_learned(files):
    students = {"linear": {**LINEAR, "radius": 4}, "network": {"kind": "cnn", "blocks": 1, "width": 8}}
    generated = {"kind": "generation", "fields": 80, "sampler": {"steps": 48}}
    folder = files(0.5)
    run = st.run(st.experiment(experiment(students, loss=LOSS, law=LAW, generated=generated)), folder / "out")
    assert run.failures == []
    found = words(run)
    assert found["linear"].label == "transfers (to second order, from data, from the trained σ_max)"
    assert found["network"].label == "not learned (from data)"
    assert "generates" in found["linear"].reason
    page = (folder / "out" / "report.html").read_text()
    assert "from data" in page

    # Without what is generated at the larger size, and without the law, losses are no transfer.
    alone = st.run(st.experiment(experiment({"linear": students["linear"]}, loss=LOSS)), folder / "alone", report=False)
    verdict = words(alone)["linear"]
    assert verdict.word == "undecided"
    assert "generated fields against held-out ones of that size" in verdict.what_would_decide
    assert any("correlation length" in one for one in verdict.what_would_decide)


@pytest.mark.slow
def test_a_radius_that_is_too_small_is_limited(files):
    """At mass .1 the best score of radius 2 at L = 32 generates .87 of the site variance, in closed form."""
    students = {f"radius {radius}": {**LINEAR, "radius": radius} for radius in (1, 2, 4)}
    run = st.run(st.experiment(experiment(students, loss=LOSS, law=LAW)), files(0.1) / "out", report=False)
    found = words(run)
    for radius in (1, 2):
        assert found[f"radius {radius}"].label == "radius-limited (to second order, from data)"
    assert found["radius 4"].word != "transfers"


@pytest.mark.slow
def test_a_larger_size_that_is_held_out_as_a_whole_is_judged(files):
    """No filter can be fitted there: those of the training size are what a student is held against."""
    folder = files(0.5)
    asked = experiment({"linear": {**LINEAR, "radius": 4}}, loss=LOSS)
    data = {**asked["teachers"]["data"], "files": ["L16.npy"], "held_out_files": ["L32.npy"]}
    run = st.run(st.experiment({**asked, "teachers": {"data": data}}), folder / "out", report=False)
    (training,) = words(run)["linear"].trainings
    assert {one.size for one in training.sizes} == {32}
    assert all(one.standing == "stable" for one in training.sizes)


def test_a_start_from_exact_fields_takes_three_sets_and_is_refused_before_training(files):
    """From σ = 4, where 32 x 32 sites need 6.3: 90 generated fields take 270 exact ones, of 256."""
    folder = files(0.5)
    asked = experiment({"linear": LINEAR}, generated={"kind": "generation", "fields": 90})
    with pytest.raises(SizetransferError, match="at most 256 held-out fields") as caught:
        st.run(st.experiment(asked), folder / "out", report=False)
    assert "got:      270" in str(caught.value)
    assert "generated, size 16" in str(caught.value)
    asked["training"]["noise"]["sigma_max"] = 12.0  # from the noise that the sizes need there are two sets
    plan(st.experiment(asked).trials())


def test_fields_of_the_training_size_that_a_forecast_takes_are_asked_for_before_training(files):
    """Where the measure is restricted to the larger size, its fields of the smaller one are counted as well."""
    files(0.5)
    asked = experiment({"linear": LINEAR}, law={"kind": "linear-references", "fields": 200})
    asked["evaluation"]["restrict"] = {"law": [32]}
    plan(st.experiment(asked).trials())
    asked["teachers"]["data"]["files"] = ["L16.npy", "L32.npy"]
    np.save("L16.npy", np.load("L16.npy")[:300])
    with pytest.raises(SizetransferError, match="at most 150 held-out fields") as caught:
        plan(st.experiment(asked).trials())
    assert "got:      200" in str(caught.value)
    forecast = experiment(
        {"linear": LINEAR}, forecast={"kind": "second-order-forecast", "fields": 32, "law_fields": 257}
    )
    with pytest.raises(SizetransferError, match="257"):
        plan(st.experiment(forecast).trials())
