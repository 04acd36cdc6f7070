"""A teacher of samples in the place of one with a score: held-out rows alone are looked at, or the way is shown."""

from __future__ import annotations

import pytest
from data_files import dataset, gaussian_fields, write

import sizetransfer as st
from sizetransfer.contracts.errors import OracleError
from sizetransfer.diagnosis.from_data import DataDiagnosis
from sizetransfer.systems.dataset.teacher import DatasetTeacher

SIZE = 8


def test_samples_alone_are_diagnosed_as_data(tmp_path):
    teacher = dataset(write(tmp_path, "npy", gaussian_fields(32, SIZE)), layout="BHW")
    found = st.diagnose(teacher, sizes=(2 * SIZE,), radii=(1,))
    assert isinstance(found, DataDiagnosis)
    assert next((one.size, one.fields) for one in found.sizes) == (SIZE, 32)
    with pytest.raises(OracleError, match="--data FILE") as caught:
        st.diagnose(teacher.spec.to_json(), sizes=(SIZE,))
    assert "it has samples alone" in str(caught.value)


def test_with_functions_beside_them_no_row_is_drawn_that_a_student_was_fitted_to(tmp_path, monkeypatch):
    (tmp_path / "own_law_of_samples.py").write_text(
        "import torch\n\n\ndef score(x):\n"
        "    near = sum(torch.roll(x, s, a) for s in (1, -1) for a in (-1, -2))\n"
        "    return near - 4.25 * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path, "npy", gaussian_fields(256, SIZE))
    teacher = dataset(path, layout="BHW", split={"held_out": 0.5}, functions={"score": "own_law_of_samples:score"})
    parts, drawn = set(), DatasetTeacher.sample

    def noted(self, batch, size, *, generator):
        parts.add(self.part)
        return drawn(self, batch, size, generator=generator)

    monkeypatch.setattr(DatasetTeacher, "sample", noted)
    question = {"sizes": (SIZE,), "reference_fields": 64}
    found = st.diagnose(teacher, {"kind": "best-linear", "radius": 2, "fields": 64}, **question)
    assert parts == {"training", "held out"}
    assert found.source == "clean"
    parts.clear()
    st.diagnose(teacher, sizes=(SIZE,), radii=(1,), reference_fields=64)
    assert parts == {"held out"}
