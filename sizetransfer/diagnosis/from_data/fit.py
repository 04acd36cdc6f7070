r"""A law of short-ranged precision, fitted to fields: what the spectrum is at wave vectors of other sizes.

The range :math:`\rho` of the precision (:mod:`sizetransfer.diagnosis.from_data.precision`) is chosen by the likelihood
of held-out fields. Where it still rises at the largest :math:`\rho` tried, the precision is long-ranged: then the
spectrum at new small k is not determined by this box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.diagnosis.from_data.precision import Couplings, Element, Precision, Problem, fitted, likelihood
from sizetransfer.diagnosis.from_data.tables import Tables
from sizetransfer.scores.references.cells import Cells

FOLDS = 4
PARTS = 8
"""Parts of the fields that the jackknife leaves out in turn."""
LARGEST = 6
"""Range of the couplings that are tried, in cells, where the box holds twice of it."""
MOST_PARAMETERS = 512
MOST_WORK = 2**26
"""Numbers that one step of Newton's method transforms: about a second."""
IMPROVES = 3.0
"""Standard errors by which the held-out likelihood rises where a longer range is called better."""


@dataclass(frozen=True)
class Gain:
    """What a range adds to the held-out log-likelihood of a field.

    Attributes:
        range: of the couplings.
        value, standard_error: above the range before; by the spread over groups of fields.
    """

    range: int
    value: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class FittedLaw:
    """The law fitted to all fields, and to those without each part of them.

    Attributes:
        tables: the fields.
        range: of the couplings, in cells.
        limit: the largest that the box, or the work, allows.
        capped: whether it is the work: the box holds a longer range.
        gains: held-out log-likelihood of a field above that of the range before.
        versions: the law of all fields, then those without each part.
        folds: the laws without each fold.
    """

    tables: Tables
    range: int
    limit: int
    capped: bool
    gains: tuple[Gain, ...]
    versions: tuple[Precision, ...]
    folds: tuple[Precision, ...]

    @property
    def precision(self) -> Precision:
        """The law of all fields."""
        return self.versions[0]

    @property
    def long_ranged(self) -> bool:
        """Whether the likelihood still rises at the largest range that the box allows: the sign of a power law."""
        return self.rising and not self.capped

    @property
    def rising(self) -> bool:
        """Whether the likelihood still rises over the larger half of the ranges, up to the largest there may be."""
        if self.range < self.limit - 1:
            return False
        last = [gain for gain in self.gains if 2 * gain.range > self.limit]
        return sum(gain.value for gain in last) > IMPROVES * math.hypot(*(gain.standard_error for gain in last))

    def reaches(self, size: int) -> bool:
        """Whether it says what the law is at another size."""
        return not self.rising and all(version.positive(size) for version in self.versions)

    @property
    def longest(self) -> str:
        """The largest range that there may be, in words."""
        unit = "sites" if self.period == 1 else f"cells of {self.period} sites"
        return f"{self.limit} {unit}"

    def silent(self, size: int) -> str:
        """Why it says nothing of another size; empty where it does."""
        if self.long_ranged:
            return (
                f"the precision is long-ranged (its likelihood still rises at the largest range tried, {self.longest})"
            )
        if self.rising:
            end = f"the search for its range ended at {self.longest} by work, not by the data"
            return f"the range of the precision is open (its likelihood still rises; {end})"
        return "" if self.reaches(size) else f"the fitted spectrum is not positive at the waves of L = {size}"

    @cached_property
    def period(self) -> int:
        """Sites of a cell along an axis."""
        return int(self.precision.cell.shape[0])


def fitted_law(tables: Tables, sizes: Sequence[int], *, largest: int | None = None) -> FittedLaw:
    """The law whose precision has the range that held-out fields choose.

    Args:
        tables: the fields.
        sizes: other sizes at which the law will be asked for; the barrier looks there.
        largest: range of the couplings that are tried, in cells.
    """
    blocks = _Blocks(tables, sizes)
    limit, capped = blocks.limit(LARGEST if largest is None else largest)
    parts = tables.parts(FOLDS)
    tests = [[blocks.lags([group]) for group in part] for part in parts]
    search = _Search(blocks, [blocks.problem(tables.without(part)) for part in parts], tests)
    best, gains = search.run(limit)
    couplings = blocks.couplings(best)
    whole = fitted(blocks.problem(), couplings)
    others = [fitted(blocks.problem(tables.without(part)), couplings, whole) for part in tables.parts(PARTS)]
    versions = tuple(blocks.law(couplings, parameters) for parameters in (whole, *others))
    folds = tuple(blocks.law(couplings, fitted(problem, couplings, whole)) for problem in search.trained)
    return FittedLaw(tables, best, limit, capped, tuple(gains), versions, folds)


class _Search:
    """Looks for the range of couplings by the likelihood of held-out fields.

    Args:
        blocks: the fields.
        trained: what the likelihood of the other folds is made of, by fold.
        tests: covariances of the groups of every fold.
    """

    def __init__(self, blocks: _Blocks, trained: Sequence[Problem], tests: Sequence[Sequence[Tensor]]) -> None:
        self.blocks, self.trained, self.tests = blocks, trained, tests
        self._starts: list[dict[Element, float]] = [{} for _ in trained]

    def run(self, limit: int) -> tuple[int, list[Gain]]:
        """The range, and what each one adds to the best before; all are tried, since couplings may leave gaps."""
        shares, count = self.blocks.tables.shares, self.blocks.tables.count
        best, score = 0, self.held_out(0)
        gains: list[Gain] = []
        for reach in range(1, limit + 1):
            found = self.held_out(reach)
            gain = self.blocks.cells * (score - found)
            total = float(shares @ gain)
            error = float((gain - total).square() @ shares.square()) ** 0.5
            gains.append(Gain(reach, total, error if count > 1 else math.nan))
            if total > 0:
                best, score = reach, found
        return best, gains

    def held_out(self, reach: int) -> Float[Tensor, "groups"]:
        """Negative log-likelihood per cell of every group under the law of the other folds."""
        couplings, found = self.blocks.couplings(reach), []
        for fold, (problem, lags) in enumerate(zip(self.trained, self.tests, strict=True)):
            parameters = fitted(problem, couplings, self._start(fold, couplings))
            self._starts[fold] = dict(zip((orbit[0] for orbit in couplings.orbits), parameters.tolist(), strict=True))
            found.append(likelihood(problem, couplings, parameters, lags))
        return torch.cat(found)

    def _start(self, fold: int, couplings: Couplings) -> Tensor | None:
        """The parameters of the range before."""
        known = self._starts[fold]
        if not known:
            return None
        return torch.tensor([known.get(orbit[0], 0.0) for orbit in couplings.orbits], dtype=torch.float64)


class _Blocks:
    """Tables as covariances between cells.

    Args:
        tables: the fields.
        sizes: other sizes of interest.
    """

    def __init__(self, tables: Tables, sizes: Sequence[int]) -> None:
        self.tables = tables
        self.table_cells = Cells(tables.labels)
        self.period = self.table_cells.period
        self.cell = tables.labels[(slice(self.period),) * tables.dim]
        self.components = tables.channels * self.cell.numel()
        own = tables.size // self.period
        side = own if tables.torus else 4 * own
        largest = max([side, *(size // self.period for size in sizes)])
        most = int(2**17 ** (1 / tables.dim))
        self.grid = (min(side, most) if not tables.torus else side,) * tables.dim
        # Matrices are dear: where they are positive at other sizes is looked at afterwards.
        finest = max(own, min(2 * largest, most)) if self.components == 1 else own
        self.fine = (finest,) * tables.dim
        self._couplings: dict[int, Couplings] = {}
        self.cells = math.prod(self.grid) if tables.torus else (tables.size // self.period) ** tables.dim

    def limit(self, largest: int) -> tuple[int, bool]:
        """The largest range that the table and the work allow, and whether it is the work that ends it."""
        reach = min(largest, (self.tables.labels.shape[0] // self.period - 1) // 2)
        transformed = (math.prod(self.grid) + math.prod(self.fine)) * self.components**4
        most = MOST_PARAMETERS if transformed <= MOST_WORK else 0
        allowed = 0
        while allowed < reach and self.couplings(allowed + 1).count <= most:
            allowed += 1
        return allowed, allowed < reach

    def couplings(self, reach: int) -> Couplings:
        """Those of a range."""
        if reach not in self._couplings:
            self._couplings[reach] = Couplings.within(reach, self.cell, self.tables.channels)
        return self._couplings[reach]

    def lags(self, kept: Sequence[int] | None = None) -> Float[Tensor, "m m *cells"]:
        matrices = self.table_cells.matrices(self.tables.moments(kept).products.flatten(3))
        waves = torch.unflatten(matrices.permute(1, 2, 0), -1, self.table_cells.grid)
        found: Tensor = torch.fft.ifftn(waves, dim=tuple(range(2, waves.ndim))).real
        return found

    def problem(self, kept: Sequence[int] | None = None) -> Problem:
        removed = self.tables.removed and self.period == 1
        return Problem(self.lags(kept), self.grid, self.fine, removed)

    def law(self, couplings: Couplings, parameters: Tensor) -> Precision:
        return Precision(couplings, parameters, self.cell, self.tables.means, self.tables.channels)
