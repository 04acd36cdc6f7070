"""Trajectories of crystals: known displacements come back, from any order, box and images; what is none is named."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import sizetransfer as st
from sizetransfer.contracts.errors import SpecError

ase = pytest.importorskip("ase")
ase_io = pytest.importorskip("ase.io")

SIDE, COUNT, SPACING = 3, 12, 2.5
CUBIC = np.eye(3)
FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / np.sqrt(2)  # the primitive cell of fcc


def known(seed=0, size=0.1):
    """Displacements ``(B, L, L, L, 3)`` without a mean."""
    u = size * np.random.default_rng(seed).standard_normal((COUNT, SIDE, SIDE, SIDE, 3))
    return u - u.mean((1, 2, 3), keepdims=True)


def trajectory(path, u, *, vectors=CUBIC, drift=0.0, wrapped=True, shuffled=True):
    """Write snapshots as a program of molecular dynamics does: any order, drifting, wrapped into the box."""
    random = np.random.default_rng(1)
    cell = SPACING * vectors
    sites = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1).reshape(-1, 3) + 0.3
    order = random.permutation(len(sites)) if shuffled else np.arange(len(sites))
    frames = []
    for number, field in enumerate(u):
        positions = (sites @ cell + field.reshape(-1, 3) + number * drift)[order]
        frame = ase.Atoms("Cu" * len(sites), positions=positions, cell=SIDE * cell, pbc=True)
        if wrapped:
            frame.wrap()
        frames.append(frame)
    ase_io.write(path, frames)
    return path


def teacher(path, **fields):
    return st.teacher("dataset", files=[str(path)], boundary="periodic", **fields).double()


def samples(path):
    """All fields, in the order of the file."""
    contents = teacher(path).contents
    numbers = contents.files[0].numbers
    return np.stack([numbers.window(row, (0,) * 3, (SIDE,) * 3) for row in range(numbers.rows)])


@pytest.mark.parametrize("suffix", ["traj", "xyz", "extxyz"])
@pytest.mark.parametrize("vectors", [CUBIC, FCC], ids=["cubic", "fcc"])
def test_displacements_come_back(tmp_path, suffix, vectors):
    u = known()
    found = samples(trajectory(tmp_path / f"md.{suffix}", u, vectors=vectors))
    assert found.shape == (COUNT, 3, SIDE, SIDE, SIDE)
    digits = 1e-7 if suffix != "traj" else 1e-12  # text has eight decimals
    shift = _shift_between(found[0], u[0])
    assert np.abs(np.roll(found, shift, (2, 3, 4)).transpose(0, 2, 3, 4, 1) - u).max() < digits


def _shift_between(one, other):
    """Which site is called the first is a convention: the translation that maps one field to the other."""
    shifts = np.ndindex(SIDE, SIDE, SIDE)
    return min(shifts, key=lambda shift: np.abs(np.roll(one, shift, (1, 2, 3)).transpose(1, 2, 3, 0) - other).max())


def test_a_drift_and_images_are_taken_off(tmp_path):
    u = known()
    still = samples(trajectory(tmp_path / "still.traj", u))
    moving = samples(trajectory(tmp_path / "moving.traj", u, drift=0.3 * SPACING))  # by half a box in snapshot 5
    assert np.abs(still - moving).max() < 1e-12
    assert np.abs(still.mean((2, 3, 4))).max() < 1e-15


def test_it_is_a_teacher_that_says_what_was_done(tmp_path):
    found = teacher(trajectory(tmp_path / "md.traj", known()), components="vector")
    assert (found.field.dim, found.field.channels, found.field.components) == (3, 3, "vector")
    assert "3 x 3 x 3 cells, in ångström" in found.notes[0]
    assert "k = 0 is zero" in found.notes[0]
    assert found.field.sigma_data == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("name", ["md.traj", "md.xyz"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"27\nnothing of the kind\nCu 0 0\n")
    with pytest.raises(SpecError, match="cannot be read"):
        teacher(tmp_path / name)


def test_without_the_package_it_is_named(tmp_path, monkeypatch):
    path = trajectory(tmp_path / "md.traj", known())
    monkeypatch.setitem(sys.modules, "ase.io", None)
    with pytest.raises(SpecError, match="package ase") as caught:
        teacher(path)
    assert 'pip install "sizetransfer[ase]"' in str(caught.value)


def test_what_is_no_crystal_is_named(tmp_path):
    def refused(frames, name):
        path = tmp_path / f"{name}.traj"
        ase_io.write(path, frames)
        with pytest.raises(SpecError) as caught:
            teacher(path)
        return str(caught.value)

    box = SPACING * SIDE * np.eye(3)
    random = np.random.default_rng(0)
    gas = ase.Atoms("Cu27", positions=random.uniform(0, box[0, 0], (27, 3)), cell=box, pbc=True)
    assert "one in a cell" in refused([gas] * 4, "gas")
    four = ase.Atoms("Cu108", positions=random.uniform(0, 1, (108, 3)), cell=box, pbc=True)
    assert "108 atoms" in refused([four] * 4, "conventional")
    slab = ase.Atoms("Cu27", positions=gas.positions, cell=box, pbc=(True, True, False))
    assert "periodic along its three vectors" in refused([slab] * 4, "slab")
    path = trajectory(tmp_path / "hop.traj", known(), wrapped=False, shuffled=False)
    frames = ase_io.read(path, index=":")
    frames[5].positions[7] += (0.6 * SPACING, 0, 0)
    assert "snapshot 5, atom 7" in refused(frames, "hops")
