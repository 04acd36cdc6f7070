r"""Trajectories of the atoms of a crystal, as ASE reads them: displacements from the sites, as fields on a lattice.

The crystal is a supercell: :math:`L^3` primitive cells of one atom each, along the three vectors of the box, whatever
the angles between them (simple cubic cells, or the primitive ones of fcc and bcc). With the fractional coordinates
:math:`f_a = L\,s_a` of atom a in units of a cell, its site is :math:`n_a = f_a - o` rounded, with the offset o that
all atoms share, the angle of :math:`\sum_a e^{2\pi i f_a}`, and its displacement, in the units of the positions
(ångström), taken to the nearest image,

.. math:: u_a = (f_a - o - n_a)\,A / L , \qquad u_a \to u_a - \frac{1}{L^3}\sum_b u_b ,

with the vectors of the box as the rows of A. The mean displacement of a snapshot is not physical, as thermostats and
integrators fix or move it: it is taken off, so that the wave k = 0 of the fields is zero and is to be left out of every
comparison. Sites are found in the first snapshot; the box may change with time, the atoms may not leave their sites.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizetransfer.contracts.errors import SpecError

FORMATS = {".traj": "traj", ".xyz": "extxyz", ".extxyz": "extxyz"}
"""ASE's names of the formats, by suffix."""

FARTHEST = 0.5
"""Displacement, in cells along an axis, at which an atom is no longer at its site."""

Array = NDArray[np.float64]


def displacements(path: Path, ase_io: Any) -> tuple[Array, str]:
    """Displacements ``(B, L, L, L, 3)`` of all snapshots, and what was done, in words.

    Args:
        path: the trajectory.
        ase_io: the module ``ase.io``.

    Raises:
        SpecError: the box is open, the atoms are no crystal of one atom a cell, or an atom leaves its site.
    """
    frames = ase_io.read(path, index=":", format=FORMATS[path.suffix.lower()])
    if not frames:
        raise _no_crystal(path, "at least one snapshot", "none")
    side = _side(path, frames[0])
    cells = [_in_cells(path, frame, side) for frame in frames]
    # What all atoms share is nearly the same in all snapshots of a crystal; it is taken off in the end.
    offset = np.angle(np.exp(2j * np.pi * cells[0]).mean(0)) / (2 * np.pi)
    sites = np.rint(cells[0] - offset)
    order = _order(path, sites.astype(np.int64) % side, side)
    found = np.empty((len(frames), side, side, side, 3))
    for number, (frame, cell) in enumerate(zip(frames, cells, strict=True)):
        apart = _nearest(cell - offset - sites, side, path, number)
        moved = apart @ np.asarray(frame.cell, dtype=np.float64) / side
        found[number] = (moved - moved.mean(0))[order].reshape(side, side, side, 3)
    return found, (
        f"displacements from the sites of {side} x {side} x {side} cells, in ångström, less the mean of every "
        "snapshot, so that the wave k = 0 is zero and says nothing"
    )


def _side(path: Path, frame: Any) -> int:
    """Cells along each vector of the box."""
    count, side = len(frame), round(len(frame) ** (1 / 3))
    if not all(frame.pbc) or abs(frame.cell.volume) == 0:
        raise _no_crystal(path, "a box that is periodic along its three vectors", f"periodic: {list(frame.pbc)}")
    if side**3 != count or side < 2:
        raise _no_crystal(path, "a cube of primitive cells, 8, 27, 64, ... atoms", f"{count} atoms")
    return int(side)


def _in_cells(path: Path, frame: Any, side: int) -> Array:
    """Fractional coordinates in units of a cell, ``(atoms, 3)``, not wrapped into the box."""
    if len(frame) != side**3:
        raise _no_crystal(path, f"{side**3} atoms in every snapshot", f"{len(frame)} atoms")
    found: Array = side * np.asarray(frame.cell.scaled_positions(frame.positions), dtype=np.float64)
    return found


def _order(path: Path, sites: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """The atom at each site, sites in the order of their indices."""
    flat = np.ravel_multi_index(tuple(sites.T), (side,) * 3)
    taken = len(np.unique(flat))
    if taken != side**3:
        raise _no_crystal(path, f"an atom at each of {side**3} sites, one in a cell", f"atoms at {taken} sites")
    return np.argsort(flat)


def _nearest(apart: Array, side: int, path: Path, number: int) -> Array:
    """Displacements, in cells, to the nearest image of the sites."""
    # Less what all atoms share, on the circle that the box is: a drift leaves none of them at another image.
    shared = np.angle(np.exp(2j * np.pi * apart / side).mean(0)) / (2 * np.pi)
    apart = apart - side * shared
    apart = apart - side * np.rint(apart / side)
    relative = apart - apart.mean(0)
    far = np.abs(relative).max(1)
    if not far.max() < FARTHEST:
        raise SpecError(
            "An atom of a trajectory has left its site.",
            where=f"{path}, snapshot {number}, atom {int(far.argmax())}",
            expected=f"displacements of less than {FARTHEST:g} cells along every vector of the box",
            got=f"{far.max():.3g}",
            fix="take a crystal below its melting point, and snapshots before atoms diffuse",
        )
    return np.asarray(apart)


def _no_crystal(path: Path, expected: str, got: str) -> SpecError:
    return SpecError(
        "A trajectory is read as displacements of a crystal of one atom a primitive cell, which this is not.",
        where=str(path),
        expected=expected,
        got=got,
        fix="repeat a primitive cell alike along its three vectors; for other crystals subtract the sites yourself, "
        "and numpy.save an array BDHWC with three channels for each atom of a cell",
    )
