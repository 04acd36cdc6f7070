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
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.scores.references.cells import Cells
from sizetransfer.scores.references.moments import TorusMoments

BARRIER = 1e-3
"""Weight of the barrier, in units of a field: it moves the spectrum by a tenth of a percent at most."""
_CONVERGED = 1e-10
_ITERATIONS = 60
_CHUNK = 2**22


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

    def phases(
        self, shape: tuple[int, ...], components: int, kept: Tensor | None = None
    ) -> Float[Tensor, "parameters waves m m"]:
        """The matrix that multiplies every parameter at every wave of a torus of cells; real for single components.

        Args:
            shape: cells along each axis.
            components: of a cell.
            kept: flat indices of some waves; by default all.
        """
        waves = torch.meshgrid(*[2 * math.pi * torch.arange(n, dtype=torch.float64) / n for n in shape], indexing="ij")
        k = torch.stack([wave.flatten() for wave in waves], 1)
        k = k if kept is None else k[kept]
        dtype = torch.float64 if components == 1 else torch.complex128
        found = torch.zeros(self.count, len(k), components, components, dtype=dtype)
        for place, orbit in enumerate(self.orbits):
            for element in orbit:
                angle = k @ torch.tensor(element.steps, dtype=torch.float64)
                wave = angle.cos() if components == 1 else torch.polar(torch.ones_like(angle), -angle)
                found[place, :, element.row, element.column] += wave
        return found

    def covariances(self, lags: Float[Tensor, "m m *cells"]) -> Float[Tensor, "parameters"]:
        """The sum of the covariances that multiply every parameter in the likelihood."""
        sums = [sum(float(lags[(e.row, e.column, *e.steps)]) for e in orbit) for orbit in self.orbits]
        return torch.tensor(sums, dtype=torch.float64)


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

    def matrices(self, cells: tuple[int, ...]) -> Float[Tensor, "waves m m"]:
        """The inverse spectrum on a torus of so many cells."""
        components = self.channels * self.cell.numel()
        shape = (math.prod(cells), components, components)
        found = torch.zeros(shape, dtype=torch.float64 if components == 1 else torch.complex128)
        phases = self.couplings.phases(cells, components)
        return found + torch.einsum("j,jkab->kab", self.parameters.to(phases.dtype), phases)

    def positive(self, size: int) -> bool:
        """Whether the spectrum is positive at every wave of a torus of ``size`` sites along each axis."""
        cells = (size // self.cell.shape[0],) * self.cell.ndim
        return bool(torch.linalg.eigvalsh(self.matrices(cells)).min() > 0)

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


Terms: TypeAlias = Sequence[tuple[Tensor, Tensor]]
"""Matrices that multiply the parameters at some waves, and the weights of these."""


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

    def terms(self, couplings: Couplings) -> Terms:
        """The waves whose logarithms are summed, with their weights; then those of the barrier."""
        own, weights = _half(self.grid)
        weights = weights * (own > 0) if self.without_mean else weights
        finer, barrier = _half(self.fine)
        m = self.components
        return [
            (couplings.phases(self.grid, m, own), weights),
            (couplings.phases(self.fine, m, finer), BARRIER * barrier),
        ]


def _half(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Of every wave and its opposite, which have conjugate matrices, one, with the share of both in the mean."""
    index = torch.arange(math.prod(shape))
    places = torch.stack(torch.unravel_index(index, shape))
    lengths = torch.tensor(shape)[:, None]
    opposite = torch.zeros_like(index)
    for place, length in zip((-places) % lengths, shape, strict=True):
        opposite = opposite * length + place
    kept = index <= opposite
    return index[kept], torch.where(index == opposite, 1.0, 2.0)[kept].double() / len(index)


def fitted(problem: Problem, couplings: Couplings, start: Tensor | None = None) -> Tensor:
    """The parameters of largest likelihood, by Newton's method."""
    slope = (1 + BARRIER) * couplings.covariances(problem.lags)
    return _newton(slope, problem.terms(couplings), _started(problem, couplings) if start is None else start)


def _started(problem: Problem, couplings: Couplings) -> Tensor:
    """Independent components, each of its own variance."""
    origin = problem.lags.flatten(2)[..., 0].diagonal()
    start = torch.zeros(couplings.count, dtype=torch.float64)
    for place, orbit in enumerate(couplings.orbits):
        if _length(orbit[0]) == 0 and orbit[0].row == orbit[0].column:
            start[place] = 1 / float(origin[orbit[0].row])
    return start


def _newton(slope: Tensor, terms: Terms, parameters: Tensor) -> Tensor:
    value = _value(slope, terms, parameters)
    for _ in range(_ITERATIONS):
        gradient, curvature = _derivatives(slope, terms, parameters)
        step = torch.linalg.lstsq(curvature, -gradient[:, None], driver="gelsd").solution[:, 0]
        decrement = -float(gradient @ step)
        length = 1.0
        while True:
            trial = parameters + length * step
            found = _value(slope, terms, trial)
            if found <= value - 0.1 * length * decrement + 1e-14 * abs(value) or length < 1e-8:
                break
            length /= 2
        if length < 1e-8:
            break
        parameters, value = trial, found
        if decrement < _CONVERGED:
            break
    return parameters


def _value(slope: Tensor, terms: Terms, parameters: Tensor) -> float:
    total = float(slope @ parameters)
    for phases, weights in terms:
        _, logarithm = _factor(phases, weights, parameters)
        if logarithm is None:
            return math.inf
        total -= logarithm
    return total


def _factor(phases: Tensor, weights: Tensor, parameters: Tensor) -> tuple[Tensor, float | None]:
    """The inverse spectrum, and the sum of logarithms of its determinants; none where it is not positive."""
    theta = torch.einsum("j,jkab->kab", parameters.to(phases.dtype), phases)
    if theta.shape[1] == 1:
        low = float(theta.min())
        return theta, float(weights @ theta.flatten().log()) if low > 0 else None
    factor, wrong = torch.linalg.cholesky_ex(theta)
    if bool(wrong.any()):
        return theta, None
    return theta, 2 * float(weights @ factor.diagonal(dim1=1, dim2=2).real.log().sum(1))


def _derivatives(slope: Tensor, terms: Terms, parameters: Tensor) -> tuple[Tensor, Tensor]:
    gradient, curvature = slope.clone(), torch.zeros(len(slope), len(slope), dtype=torch.float64)
    for phases, weights in terms:
        theta, _ = _factor(phases, weights, parameters)
        for some in torch.split(torch.arange(len(weights)), max(1, _CHUNK // (len(slope) * theta.shape[1] ** 2))):
            root = _inverse_root(theta[some])
            whitened = root @ phases[:, some] @ root.mH
            gradient -= whitened.diagonal(dim1=2, dim2=3).real.sum(2) @ weights[some]
            whitened = weights[some, None, None].sqrt() * whitened
            flat = torch.view_as_real(whitened).flatten(1) if whitened.is_complex() else whitened.flatten(1)
            curvature += flat @ flat.T
    return gradient, curvature


def _inverse_root(theta: Tensor) -> Tensor:
    if theta.shape[1] == 1:
        return theta.rsqrt()
    factor = torch.linalg.cholesky(theta)
    unit = torch.eye(theta.shape[1], dtype=theta.dtype).expand_as(theta)
    root: Tensor = torch.linalg.solve_triangular(factor, unit, upper=False)
    return root


def likelihood(problem: Problem, couplings: Couplings, parameters: Tensor, lags: Sequence[Tensor]) -> Tensor:
    """Negative log-likelihood per cell of other fields, one number for each table of covariances."""
    _, logarithm = _factor(*problem.terms(couplings)[0], parameters)
    if logarithm is None:
        return torch.full((len(lags),), math.inf, dtype=torch.float64)
    return torch.stack([couplings.covariances(one) @ parameters for one in lags]) - logarithm
