"""From files of fields to records, by a file of an experiment: what is said, what is kept, what is noticed."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from data_files import gaussian_fields, write

import sizetransfer as st
from sizetransfer import cli
from sizetransfer.contracts.errors import RunError, SizetransferError
from sizetransfer.runs.preflight import plan

EXPERIMENT = {
    "name": "mine",
    "teachers": {
        "data": {"kind": "dataset", "files": ["L8.npy", "L16.npy"], "boundary": "periodic", "split": {"held_out": 0.5}}
    },
    "students": {
        "cnn": {"kind": "cnn", "blocks": 0, "width": 4},
        "linear": {"kind": "best-linear", "radius": 2, "fields": 16},
    },
    "training": {"size": 8, "steps": 4, "batch": 4},
    "seeds": [0],
    "evaluation": {
        "sizes": [8, 16],
        "measures": {
            "loss": {"kind": "denoising-loss", "fields": 12, "sigmas": [0.5]},
            "generated": {"kind": "generation", "fields": 22, "sampler": {"steps": 4}},
            "clean": {"kind": "clean-score"},
        },
    },
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with fields of two sizes and the file of an experiment."""
    monkeypatch.chdir(tmp_path)
    for size in (8, 16):
        write(tmp_path, "npy", gaussian_fields(136, size), f"L{size}")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    return tmp_path


def keys(run):
    return {entry["trial"] for entry in run.manifest["trials"]}


@pytest.mark.slow
def test_a_run_from_files(folder):
    result = CliRunner().invoke(cli.cli, ["run", "mine.yaml", "--out", "out"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "136 fields of 1 channel on 16 x 16 sites (layout BHW, by shape)" in result.output
    assert "8 x 8 sites: 68 training, 68 held out" in result.output
    assert "Skipped: clean of data / cnn / seed 0: the teacher 'data' lacks HasScore" in result.output
    run = st.open_run("out")
    assert run.complete
    records = run.records
    assert set(records["measure"]) == {"loss", "generated"}
    assert set(records[records["measure"] == "loss"]["part"]) >= {"loss", "null", "linear", "best", "excess"}
    losses = records[(records["part"] == "null") & (records["size"] == 16)]
    assert losses["value"].nunique() == 1  # all students are held against the same fields and noise
    page = (folder / "out" / "report.html").read_text()
    assert "by shape" in page

    again = st.run("mine.yaml", "out", report=False)
    assert again.reused["trainings"] == 2
    array = np.load("L8.npy")
    array[0, 0, 0] += 1e-3
    np.save("L8.npy", array)
    changed = st.run("mine.yaml", "out", report=False)
    assert not keys(changed) & keys(again)
    assert any("L8.npy was changed" in change for one in changed.manifest["renewed"] for change in one["changes"])


def overridden(**values):
    return st.load("mine.yaml", overrides={name.replace("__", "."): value for name, value in values.items()})


@pytest.mark.usefixtures("folder")
def test_more_fields_than_are_held_out_are_refused_before_anything_is_trained(tmp_path):
    asked = overridden(evaluation__measures={"loss": {"kind": "denoising-loss", "fields": 69}})
    with pytest.raises(SizetransferError, match="at most 68 held-out fields") as caught:
        st.run(asked, tmp_path / "out", report=False)
    assert "got:      69" in str(caught.value)
    pairs = overridden(evaluation__measures={"generated": {"kind": "generation", "fields": 35}})
    with pytest.raises(SizetransferError, match="at most 68 held-out fields"):
        st.run(pairs, tmp_path / "out", report=False)
    assert not list((tmp_path / "out").rglob("*.safetensors"))


@pytest.mark.usefixtures("folder")
def test_what_is_wrong_with_the_data_is_said_before_anything_is_trained(tmp_path):
    for values, said in (
        ({"evaluation__sizes": [8, 12]}, "one of [8, 16]"),
        ({"teachers__data__files": ["nowhere.npy"]}, "does not exist"),
        ({"training__batch": 69}, "at most 68 training fields"),
    ):
        try:
            run = st.run(overridden(**values), tmp_path / said[:3], report=False)
            text = str(run.failures)
        except SizetransferError as error:
            text = str(error)
        assert said in text


@pytest.mark.usefixtures("folder")
def test_functions_beside_data_give_their_measures(tmp_path, monkeypatch):
    (tmp_path / "own_law_of_data.py").write_text(
        "import numpy as np\n\n\ndef score(x):\n"
        "    near = sum(np.roll(x, s, a) for s in (1, -1) for a in (-1, -2))\n"
        "    return near - 4.25 * x\n\n\n"
        "def log_density(x):\n    return 0.5 * (x * score(x)).sum((1, 2, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    functions = {"score": "own_law_of_data:score", "log_density": "own_law_of_data:log_density"}
    data = {**EXPERIMENT["teachers"]["data"], "functions": functions, "normalised": False}
    own = {
        "clean": {"kind": "clean-score", "fields": 32},
        "law": {"kind": "linear-references", "fields": 64, "radii": [1]},
    }
    asked = overridden(teachers={"data": data}, students={"linear": EXPERIMENT["students"]["linear"]})
    asked = st.experiment({**asked.to_json(), "evaluation": {"sizes": [8], "measures": own}, "verdict": {}})
    run = st.run(asked, tmp_path / "own", report=False)
    assert run.skipped == []
    assert run.failures == []
    records = run.records[run.records["student"] == "linear"].set_index("part")["value"]
    exact = st.teacher("gaussian", mass=0.5).double()
    sample = exact.sample(64, 8, generator=__import__("torch").Generator().manual_seed(0))
    assert records["teacher_rms"] == pytest.approx(float(exact.score(sample).square().mean().sqrt()), rel=0.05)
    assert 0 < records["linear"] < records["null"]
    with pytest.raises(RunError, match="names code"):
        st.open_run(tmp_path / "own").teacher("data")
    teacher = st.open_run(tmp_path / "own", trust=True).teacher("data")
    assert hasattr(teacher, "energy")
    assert not hasattr(teacher, "log_density")
    assert not hasattr(st.load("mine.yaml").teachers["data"].build(), "score")


@pytest.mark.usefixtures("folder")
def test_a_folder_of_one_teacher_is_in_no_key_of_another(tmp_path):
    """zarr keeps an array in many files, which the same code opens for every data set."""

    def key(name):
        data = {**EXPERIMENT["teachers"]["data"], "files": [f"{name}.zarr"]}
        evaluation = {"sizes": [8], "measures": {"loss": {"kind": "denoising-loss", "fields": 4}}}
        one = st.experiment({**EXPERIMENT, "teachers": {"data": data}, "evaluation": evaluation})
        return plan(one.trials()).trials[0].keys

    for name in ("a", "b"):
        write(tmp_path, "zarr", gaussian_fields(16, 8, name=len(name)), name)
    before = key("a")
    key("b")
    assert key("a") == before
    assert any("a.zarr" in file for file in before.files)
    assert not any("b.zarr" in file for file in before.files)
    shutil.rmtree("b.zarr")
    write(tmp_path, "zarr", gaussian_fields(16, 8, name=7), "b")
    assert key("a") == before
    assert key("b").training != before.training
