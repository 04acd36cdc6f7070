r"""Precisions of short range, fitted to second moments by their likelihood.

The inverse spectrum is a short Fourier series of couplings, as that of a local energy is,

.. math:: S(k)^{-1} = \Theta(k) = \sum_{|d| \le \rho} q_d\, e^{-ik\cdot d},

for several channels, or sites of several classes in a cell, a Hermitian matrix. Its parameters minimise Whittle's
(1954) negative log-likelihood per cell of periodic fields,

.. math:: f(q) = \sum_{|d|\le\rho} \mathrm{tr}\, q_d\,\hat C_d^T - \frac1N \sum_k \ln\det\Theta(k)
          - \epsilon\,\frac1{N'}\sum_{k'} \ln\det\Theta(k'),

which is convex: Newton's method finds the minimum. Only covariances up to :math:`\rho` enter, so that the law has the
covariances of the fields there and is otherwise the most random one (maximum entropy; Burg 1975). The last term, a
barrier on a finer grid of waves, keeps the spectrum positive where other sizes look at it. Moments of a crop know no
torus: their sum over k is the integral, on a grid several times as fine. How long the range is, held-out fields choose
(:mod:`sizetransfer.diagnosis.from_data.fit`).

References:
    Whittle 1954, On stationary processes in the plane, Biometrika 41.
    Dempster 1972, Covariance selection, Biometrics 28.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sizetransfer.scores.references.cells import Cells
from sizetransfer.scores.references.moments import TorusMoments

BARRIER = 1e-3
"""Weight of the barrier, in units of a field: it moves the spectrum by a tenth of a percent at most."""
_CONVERGED = 1e-10
_ITERATIONS = 60


@dataclass(frozen=True)
class Element:
    """One coupling: between a component of one cell and one of the cell at some steps.

    Attributes:
        steps: from cell to cell.
        row, column: component of the first cell, and of the second.
    """

    steps: tuple[int, ...]
    row: int
    column: int

    @property
    def reverse(self) -> Element:
        """The same pair from its other end."""
        return Element(tuple(-step for step in self.steps), self.column, self.row)


@dataclass(frozen=True, eq=False)
class Elements:
    """Couplings as arrays.

    Attributes:
        orbit: place of the parameter of each, ``(E,)``.
        row, column: components, ``(E,)``.
        steps: from cell to cell, ``(E, dim)``.
    """

    orbit: Tensor
    row: Tensor
    column: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Couplings:
    """Which couplings there are up to a range, and which share a parameter.

    A pair from both its ends, and pairs that a translation by less than a cell takes to each other.

    Attributes:
        orbits: the elements of every parameter.
    """

    orbits: tuple[tuple[Element, ...], ...]

    @classmethod
    def within(cls, reach: int, cell: Tensor, channels: int) -> Couplings:
        """All couplings of at most this Euclidean range, in cells.

        Args:
            reach: the range.
            cell: classes of the sites of a cell.
            channels: components of a site.
        """
        moves = _moves(cell)
        orbits: dict[Element, tuple[Element, ...]] = {}
        for steps in itertools.product(range(-reach, reach + 1), repeat=cell.ndim):
            if sum(step * step for step in steps) > reach * reach:
                continue
            for row, column in itertools.product(range(channels * cell.numel()), repeat=2):
                element = Element(steps, row, column)
                if element not in orbits:
                    moved = {_moved(element, move, cell, channels) for move in moves}
                    orbit = tuple(sorted(moved | {one.reverse for one in moved}, key=repr))
                    orbits.update(dict.fromkeys(orbit, orbit))
        kept = {orbit for orbit in orbits.values() if all(_length(one) <= reach * reach for one in orbit)}
        return cls(tuple(sorted(kept, key=lambda orbit: (_length(orbit[0]), repr(orbit[0])))))

    @property
    def count(self) -> int:
        """How many parameters."""
        return len(self.orbits)

    @cached_property
    def table(self) -> Elements:
        """All elements, orbit by orbit."""
        every = [(place, one) for place, orbit in enumerate(self.orbits) for one in orbit]
        return Elements(
            torch.tensor([place for place, _ in every]),
            torch.tensor([one.row for _, one in every]),
            torch.tensor([one.column for _, one in every]),
            torch.tensor([one.steps for _, one in every]),
        )

    @cached_property
    def first(self) -> Int[Tensor, "parameters"]:
        """The first element of every orbit, by its place in the table."""
        return self.sizes.long().cumsum(0) - self.sizes.long()

    @cached_property
    def sizes(self) -> Float[Tensor, "parameters"]:
        """Elements of every orbit."""
        return torch.tensor([len(orbit) for orbit in self.orbits], dtype=torch.float64)

    def matrices(
        self, parameters: Float[Tensor, "parameters"], shape: tuple[int, ...], components: int, *, half: bool = False
    ) -> Float[Tensor, "waves m m"]:
        """The inverse spectrum at the waves of a torus of cells; real for single components.

        Args:
            parameters: their strengths.
            shape: cells along each axis.
            components: of a cell.
            half: of every wave and its opposite one, as :func:`torch.fft.rfftn` has them.
        """
        every = self.table
        couplings = torch.zeros(components, components, math.prod(shape), dtype=torch.float64)
        values = parameters.double()[every.orbit]
        couplings.index_put_((every.row, every.column, _flat(every.steps, shape)), values, accumulate=True)
        return _waves(torch.unflatten(couplings, -1, shape), half=half)

    def covariances(self, lags: Float[Tensor, "m m *cells"]) -> Float[Tensor, "parameters"]:
        """The sum of the covariances that multiply every parameter in the likelihood."""
        every, shape = self.table, tuple(lags.shape[2:])
        values = lags.flatten(2)[every.row, every.column, _flat(every.steps, shape)]
        found: Tensor = lags.new_zeros(self.count).index_add(0, every.orbit, values)
        return found


def _flat(steps: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Flat indices of displacements around a torus."""
    flat = torch.zeros_like(steps[..., 0])
    for length, step in zip(shape, steps.unbind(-1), strict=True):
        flat = flat * length + step % length
    return flat


def _waves(table: Float[Tensor, "m m *cells"], *, half: bool) -> Float[Tensor, "waves m m"]:
    """A table by displacement as matrices of the waves."""
    transform = torch.fft.rfftn if half else torch.fft.fftn
    waves = transform(table, dim=tuple(range(2, table.ndim)))
    matrices = waves.flatten(2).permute(2, 0, 1).contiguous()
    # Between single components a coupling and its opposite are the same number.
    found: Tensor = matrices.real.contiguous() if len(table) == 1 else matrices
    return found


def _length(element: Element) -> int:
    return sum(step * step for step in element.steps)


def _moves(cell: Tensor) -> list[tuple[int, ...]]:
    """Translations within the cell that take every class onto itself."""
    axes = tuple(range(cell.ndim))
    moves = itertools.product(*(range(length) for length in cell.shape))
    return [move for move in moves if torch.equal(cell.roll(move, axes), cell)]


def _moved(element: Element, move: tuple[int, ...], cell: Tensor, channels: int) -> Element:
    period = cell.shape[0]
    ends = []
    for component, steps in ((element.row, (0,) * cell.ndim), (element.column, element.steps)):
        site, channel = divmod(component, channels)
        inside = [site // period ** (cell.ndim - 1 - axis) % period for axis in range(cell.ndim)]
        places = [period * step + a + b for step, a, b in zip(steps, inside, move, strict=True)]
        own = 0
        for place in places:
            own = own * period + place % period
        ends.append((own * channels + channel, tuple(place // period for place in places)))
    (row, first), (column, second) = ends
    return Element(tuple(b - a for a, b in zip(first, second, strict=True)), row, column)


@dataclass(frozen=True, eq=False)
class Precision:
    """A fitted law.

    Attributes:
        couplings: which couplings there are.
        parameters: their strengths.
        cell: classes of the sites of a cell, ``(p,) * dim``: one site, or two along each axis.
        means: of the field by class.
        channels: components of a site.
    """

    couplings: Couplings
    parameters: Tensor
    cell: Tensor
    means: Tensor
    channels: int

    def matrices(self, cells: tuple[int, ...], *, half: bool = False) -> Float[Tensor, "waves m m"]:
        """The inverse spectrum on a torus of so many cells; of every wave and its opposite one, if ``half``."""
        return self.couplings.matrices(self.parameters, cells, self.channels * self.cell.numel(), half=half)

    def positive(self, size: int) -> bool:
        """Whether the spectrum is positive at every wave of a torus of ``size`` sites along each axis."""
        cells = (size // self.cell.shape[0],) * self.cell.ndim
        return bool(torch.linalg.eigvalsh(self.matrices(cells, half=True)).min() > 0)

    def moments(self, size: int) -> TorusMoments:
        """Second moments on a torus of ``size`` sites along each axis, a multiple of the cell."""
        dim, period = self.cell.ndim, self.cell.shape[0]
        labels = self.cell[torch.meshgrid(*[torch.arange(size) % period] * dim, indexing="ij")]
        cells = Cells(labels)
        spectrum = torch.linalg.inv(self.matrices((size // period,) * dim)).to(torch.complex128)
        return TorusMoments(_by_class(spectrum, cells), self.means, torch.zeros(0, 0), labels)


def _by_class(spectrum: Tensor, cells: Cells) -> Float[Tensor, "classes channels channels *size"]:
    """Covariances by class and displacement from those of every wave."""
    channels = spectrum.shape[1] // len(cells.sites)
    rows = torch.unflatten(spectrum, 1, (len(cells.sites), channels)).unbind(1)
    tables = [cells.row(row, site) for site, row in enumerate(rows)]
    classes = range(max(cells.classes) + 1)
    alike = [
        torch.stack([t for t, own in zip(tables, cells.classes, strict=True) if own == c]).mean(0) for c in classes
    ]
    return torch.unflatten(torch.stack(alike), -1, cells.shape)


@dataclass(frozen=True, eq=False)
class Problem:
    """What the likelihood of some fields is made of.

    Attributes:
        lags: covariances between the components of cells, ``(m, m, *T)``.
        grid: cells along each axis of the torus whose waves are summed.
        fine: of the torus of the barrier.
        without_mean: whether the waves of k = 0 are left out: the fields know nothing of them.
    """

    lags: Tensor
    grid: tuple[int, ...]
    fine: tuple[int, ...]
    without_mean: bool = False

    @property
    def components(self) -> int:
        """Of a cell."""
        return len(self.lags)

    @cached_property
    def grids(self) -> tuple[Waves, Waves]:
        """The waves whose logarithms are summed; then those of the barrier."""
        return Waves(self.grid, 1.0, self.without_mean), Waves(self.fine, BARRIER)


@dataclass(frozen=True, eq=False)
class Waves:
    """The waves of a torus of cells, with their weights: of every one and its opposite one, which are conjugate, one.

    Attributes:
        shape: cells along each axis.
        weight: of all waves together.
        without_mean: whether k = 0 has none.
    """

    shape: tuple[int, ...]
    weight: float
    without_mean: bool = False

    @property
    def half(self) -> tuple[int, ...]:
        """Shape of the waves that are kept."""
        return (*self.shape[:-1], self.shape[-1] // 2 + 1)

    @cached_property
    def each(self) -> Float[Tensor, "half"]:
        """Weight of every wave of the torus."""
        found = torch.full((math.prod(self.half),), self.weight / math.prod(self.shape), dtype=torch.float64)
        found[0] *= not self.without_mean
        return found

    @cached_property
    def both(self) -> Float[Tensor, "half"]:
        """The same, of a wave and its opposite one together."""
        place = torch.arange(self.half[-1])
        alone = (place == 0) | (2 * place == self.shape[-1])
        return self.each * torch.where(alone, 1.0, 2.0).double().expand(self.half).flatten()

    def sums(self, products: Float[Tensor, "half ..."]) -> Float[Tensor, "... cells"]:
        """The weighted sums of numbers of the waves, times exp(i k R), by flat R."""
        weighted = products * self.each.reshape(-1, *(1,) * (products.ndim - 1))
        waves = torch.unflatten(weighted.movedim(0, -1), -1, self.half)
        axes = tuple(range(-len(self.shape), 0))
        found: Tensor = torch.fft.irfftn(waves, s=self.shape, dim=axes, norm="forward")
        return found.flatten(-len(self.shape))


def fitted(problem: Problem, couplings: Couplings, start: Tensor | None = None) -> Float[Tensor, "parameters"]:
    """The parameters of largest likelihood, by Newton's method."""
    slope = (1 + BARRIER) * couplings.covariances(problem.lags)
    return _Newton(problem, couplings, slope).minimum(_started(problem, couplings) if start is None else start)


def _started(problem: Problem, couplings: Couplings) -> Tensor:
    """Independent components, each of its own variance."""
    origin = problem.lags.flatten(2)[..., 0].diagonal()
    start = torch.zeros(couplings.count, dtype=torch.float64)
    for place, orbit in enumerate(couplings.orbits):
        if _length(orbit[0]) == 0 and orbit[0].row == orbit[0].column:
            start[place] = 1 / float(origin[orbit[0].row])
    return start


@dataclass(frozen=True, eq=False)
class _Newton:
    r"""Newton's method for the likelihood.

    With the spectrum :math:`S = \Theta^{-1}` its second derivative between two couplings, of the components a, b over
    d and c, e over d', is a covariance of the field of spectrum S,

    .. math:: \sum_k w_k\, S_{ea}(k)\, S_{bc}(k)\, e^{-ik\cdot(d+d')} ,

    which depends on d + d' alone: one Fourier transform for every a and b gives all of them.

    Attributes:
        problem, couplings: as for :func:`fitted`.
        slope: what multiplies the parameters.
    """

    problem: Problem
    couplings: Couplings
    slope: Tensor

    def minimum(self, parameters: Tensor) -> Tensor:
        """Steps that are halved until the likelihood rises by a tenth of what its slope promises."""
        value = self._value(parameters)
        for _ in range(_ITERATIONS):
            gradient, curvature = self._derivatives(parameters)
            step = _solved(curvature, -gradient)
            decrement = -float(gradient @ step)
            length = 1.0
            while True:
                trial = parameters + length * step
                found = self._value(trial)
                if found <= value - 0.1 * length * decrement + 1e-14 * abs(value) or length < 1e-8:
                    break
                length /= 2
            if length < 1e-8:
                break
            parameters, value = trial, found
            if decrement < _CONVERGED:
                break
        return parameters

    def _theta(self, waves: Waves, parameters: Tensor) -> Tensor:
        return self.couplings.matrices(parameters, waves.shape, self.problem.components, half=True)

    def _value(self, parameters: Tensor) -> float:
        total = float(self.slope @ parameters)
        for waves in self.problem.grids:
            logarithm = _logarithm(self._theta(waves, parameters), waves)
            if logarithm is None:
                return math.inf
            total -= logarithm
        return total

    def _derivatives(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        gradient = self.slope.clone()
        curvature = torch.zeros(len(gradient), len(gradient), dtype=torch.float64)
        for waves in self.problem.grids:
            spectrum = torch.linalg.inv(self._theta(waves, parameters))
            gradient -= self.couplings.covariances(_table(waves.sums(spectrum), waves))
            curvature += self._curvature(spectrum, waves)
        return gradient, (curvature + curvature.T) / 2

    def _curvature(self, spectrum: Tensor, waves: Waves) -> Tensor:
        """One element stands for all of its orbit: translations and the other end take the sums to themselves."""
        every, first, counts = self.couplings.table, self.couplings.first, self.couplings.sizes
        found = torch.zeros(len(first), len(first), dtype=torch.float64)
        for row, column in sorted({(int(every.row[e]), int(every.column[e])) for e in first}):
            own = first[(every.row[first] == row) & (every.column[first] == column)]
            sums = waves.sums(spectrum[:, column, :, None] * spectrum[:, None, :, row])  # c, e, R
            places = _flat(-(every.steps[own][:, None] + every.steps), waves.shape)
            pairs = sums[every.row, every.column, places]
            found[every.orbit[own]] = pairs.new_zeros(len(own), len(first)).index_add(1, every.orbit, pairs)
        return counts[:, None] * found


def _table(sums: Float[Tensor, "m m cells"], waves: Waves) -> Float[Tensor, "m m *cells"]:
    """Sums over exp(i k R) as covariances between the components of a cell and of that at R."""
    return torch.unflatten(sums, -1, waves.shape)


def _solved(curvature: Tensor, right: Tensor) -> Tensor:
    """The step; of least length where the curvature is singular."""
    factor, wrong = torch.linalg.cholesky_ex(curvature)
    if int(wrong) == 0:
        return torch.cholesky_solve(right[:, None], factor)[:, 0]
    found: Tensor = torch.linalg.lstsq(curvature, right[:, None], driver="gelsd").solution[:, 0]
    return found


def _logarithm(theta: Float[Tensor, "half m m"], waves: Waves) -> float | None:
    """The weighted sum of the logarithms of the determinants; none where a matrix is not positive."""
    if theta.shape[1] == 1:
        return float(waves.both @ theta.flatten().log()) if float(theta.min()) > 0 else None
    factor, wrong = torch.linalg.cholesky_ex(theta)
    if bool(wrong.any()):
        return None
    return 2 * float(waves.both @ factor.diagonal(dim1=1, dim2=2).real.log().sum(1))


def likelihood(problem: Problem, couplings: Couplings, parameters: Tensor, lags: Sequence[Tensor]) -> Tensor:
    """Negative log-likelihood per cell of other fields, one number for each table of covariances."""
    own, _ = problem.grids
    logarithm = _logarithm(couplings.matrices(parameters, own.shape, problem.components, half=True), own)
    if logarithm is None:
        return torch.full((len(lags),), math.inf, dtype=torch.float64)
    return torch.stack([couplings.covariances(one) @ parameters for one in lags]) - logarithm
