r"""The Ising model on a square lattice in any field, exactly.

.. math:: P(s) \propto \exp\Big(\beta\sum_{\langle ij\rangle}s_is_j + \sum_ih_is_i\Big), \qquad s_i = \pm1,

every site owning the bond to its right and the one below it: 2N bonds on a torus, and double bonds where a side is two
sites long. The critical coupling is :math:`\beta_c = \tfrac12\ln(1+\sqrt2)` (Onsager 1944). With :math:`h = x/v` this
is the posterior of the spins given :math:`x = s + \sqrt v\,\xi` (paper eq. (21)).

- ``torus``: both sides closed; :mod:`sizetransfer.systems.ising.torus`.
- ``cylinder``: rows are rings, the first and the last are free; :mod:`sizetransfer.systems.ising.strips`.
- ``open``: an open box; likewise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.systems.ising.limits import Cost, Limits
from sizetransfer.systems.ising.perfect import strip_samples, torus_samples
from sizetransfer.systems.ising.rows import Rows, rows_of
from sizetransfer.systems.ising.strips import strip_cost, strip_tables
from sizetransfer.systems.ising.torus import first_row_weights, torus_cost, torus_tables

Boundary = Literal["torus", "cylinder", "open"]

_IMAGINARY = 1e-30
"""Size of an imaginary field: its square is nothing beside one, so derivatives along it are exact to rounding."""


@dataclass(frozen=True)
class Moments:
    """Exact moments in a field.

    Attributes:
        log_partition: log Z, ``(B,)``.
        mean: of every spin, ``(B, H, W)``.
    """

    log_partition: Float[Tensor, "batch"]
    mean: Float[Tensor, "batch height width"]


@dataclass(frozen=True)
class IsingModel:
    """Exact answers at one coupling (see the module); fields ``h`` have shape ``(B, H, W)``, answers are float64.

    Attributes:
        beta: coupling of each bond; negative for an antiferromagnet.
        boundary: what the rows, and the first and the last of them, are joined to.
        limits: of every call.
    """

    beta: float
    boundary: Boundary = "torus"
    limits: Limits = field(default_factory=Limits)

    def moments(self, h: Float[Tensor, "batch height width"]) -> Moments:
        """Log Z and all means.

        Raises:
            TooLargeError: beyond the limits, with the estimate.
            OracleError: fields that are no such fields or not finite, or a coupling out of range.
        """
        h, rows = self._checked(h)
        tables = torus_tables(h, rows, with_first_row=False) if self._closed else strip_tables(h, rows)
        return Moments(tables.log_partition, tables.mean)

    def mean(self, h: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
        """All means, differentiable by the fields once; errors as for :meth:`moments`."""
        means: Tensor = _Means.apply(h, self)  # type: ignore[no-untyped-call]
        return means

    def site_mean(self, h: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch"]:
        """Mean of the spin at (0, 0) of each field, in half the time; differentiable by the fields once."""
        means: Tensor = _SiteMean.apply(h, self)  # type: ignore[no-untyped-call]
        return means

    def covariance_rows(
        self, h: Float[Tensor, "batch height width"], row: int
    ) -> Float[Tensor, "batch width height width"]:
        """Covariances of all sites of a row with every site: entry ``[b, c, i, j]`` is Cov(s at (row, c), s at (i, j)).

        Raises:
            OracleError: as for :meth:`moments`, or the row is not on the lattice.
        """
        self._check_site(h, (row, 0))
        if not self._closed:
            return torch.stack([self.covariance(h, (row, c)) for c in range(h.shape[2])], 1)
        h, rows = self._checked(h)
        return torus_tables(h.roll(-row, 1), rows, with_first_row=True).covariance.roll(row, 2)

    def covariance(self, h: Float[Tensor, "batch height width"], site: Site) -> Float[Tensor, "batch height width"]:
        """Covariances of the spin at a site with every other; errors as for :meth:`covariance_rows`."""
        self._check_site(h, site)
        if self._closed:
            return self.covariance_rows(h, site[0])[:, site[1]]
        h, rows = self._checked(h)
        return strip_tables(h, rows, (site[0], site[1])).covariance[:, 0]

    def samples(
        self, h: Float[Tensor, "height width"], draws: int, *, generator: torch.Generator
    ) -> Float[Tensor, "draws height width"]:
        """Independent, perfect samples of the spins in one field; errors as for :meth:`moments`."""
        checked, rows = self._checked(h[None])
        draw = torus_samples if self._closed else strip_samples
        return draw(checked[0], rows, draws, generator)

    def cost(self, shape: tuple[int, int], batch: int = 1, sweeps: int = 2) -> Cost:
        """Estimate of the memory and the time of one call for all means and one row of covariances."""
        return torus_cost(shape, batch, sweeps=sweeps) if self._closed else strip_cost(shape, batch)

    @property
    def _closed(self) -> bool:
        return self.boundary == "torus"

    def _checked(self, h: Tensor, sweeps: int = 2) -> tuple[Tensor, Rows]:
        """The fields in double precision, and the states of their rows."""
        if h.ndim != 3 or min(h.shape) < 1:
            _refuse("The fields are no fields on a square lattice.", "h", "shape (batch, height, width)", h.shape)
        if not bool(h.isfinite().all()):
            _refuse("A field is infinite or not a number.", "h = x/v", "finite numbers", "others")
        self.require((h.shape[1], h.shape[2]), len(h), sweeps)
        double = h if h.is_complex() else h.detach().double()
        return double, self.rows(h.shape[2], h.device)

    def rows(self, width: int, device: torch.device) -> Rows:
        """The states of a row."""
        return rows_of(width, self.beta, closed=self.boundary != "open", device=device)

    def require(self, shape: tuple[int, int], batch: int = 1, sweeps: int = 2) -> None:
        """Refuse lattices beyond the limits.

        Raises:
            TooLargeError: with the estimate.
        """
        self.cost(shape, batch, sweeps).require(
            self.limits,
            what=f"The exact Ising model on a {shape[0]} x {shape[1]} {_NAMES[self.boundary]}",
            where=f"IsingModel(boundary={self.boundary!r}), {batch} field{'s' * (batch > 1)}",
            instead="take fewer fields, a smaller lattice or a narrow cylinder; without field, zero_field answers on "
            "any torus",
        )

    def _check_site(self, h: Tensor, site: Site) -> None:
        if len(site) != 2 or not all(0 <= a < n for a, n in zip(site, h.shape[1:], strict=True)):
            shape = tuple(h.shape[1:])
            _refuse("The site is not on the lattice.", "site", f"two coordinates from zero, below {shape}", site)


_NAMES = {"torus": "torus", "cylinder": "cylinder", "open": "box"}


def _refuse(what: str, where: str, expected: str, got: object) -> NoReturn:
    raise OracleError(what, where=where, expected=expected, got=str(got), fix="mend the argument")


class _Means(torch.autograd.Function):
    """Means of all spins; their derivative, the covariance matrix, by one sweep in a field with an imaginary part."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, model: IsingModel) -> Tensor:
        ctx.save_for_backward(h)
        ctx.model = model
        return model.moments(h).mean

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (h,) = ctx.saved_tensors
        size = gradient.abs().amax().double().clamp_min(torch.finfo(torch.float64).tiny)
        field = torch.complex(h.double(), _IMAGINARY * gradient.double() / size)
        product = ctx.model.moments(field).mean.imag * (size / _IMAGINARY)
        return product.to(h), None


class _SiteMean(torch.autograd.Function):
    """Mean of the first spin; its derivative is a row of covariances."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, model: IsingModel) -> Tensor:
        ctx.save_for_backward(h)
        ctx.model = model
        if model.boundary != "torus":
            return model.moments(h).mean[:, 0, 0]
        checked, rows = model._checked(h, sweeps=1)
        return first_row_weights(checked, rows) @ rows.spins[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (h,) = ctx.saved_tensors
        found = torch.zeros_like(h)
        # A row of a Jacobian asks for few of many sites.
        asked = gradient.nonzero().flatten()
        if len(asked):
            rows = ctx.model.covariance(h[asked], (0, 0)) * gradient[asked, None, None]
            found[asked] = rows.to(h)
        return found, None
