r"""The best linear approximation of any score on a torus, from its answers to noisy fields.

Among the linear scores of a ball B, at one noise level, the one nearest to :math:`\hat s` in the mean square is

.. math:: \hat s^{lin}_i = \sum_{j\in B} w_{ij} x_j, \qquad
   w = \langle \hat s\,x_B^T\rangle\,\langle x_B x_B^T\rangle^{-1},

for centred fields; averages are over fields and over the sites of a class
(:mod:`~sizetransfer.scores.references.cells`). What is left, :math:`\hat s - \hat s^{lin}`, is uncorrelated with the
field. To second order a score generates what its approximation does: for a linear score it is the score itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.scores.references.balls import check_ball, steps_of
from sizetransfer.scores.references.cells import Cells
from sizetransfer.scores.references.moments import TorusMoments, correlations, flat_index


@dataclass(frozen=True, eq=False)
class ResponseMoments:
    """Second moments of noisy fields and of a score's answers to them.

    Attributes:
        field: of the field, by class and displacement, ``(P, C, C, *S)``, float64.
        cross: of the score at a site with the field a displacement away, as ``field``.
        power: mean square of a component of the score.
        cells: of the torus.
    """

    field: Tensor
    cross: Tensor
    power: float
    cells: Cells

    @classmethod
    def of(cls, x: Tensor, score: Tensor, cells: Cells) -> ResponseMoments:
        """From fields and scores of shape ``(B, C, *S)``, about their means on every class of sites."""
        x, score = (_centred(values.double().cpu(), cells.labels) for values in (x, score))
        field, cross = (correlations(values, x, cells.labels) for values in (x, score))
        return cls(field, cross, float(score.square().mean()), cells)

    @classmethod
    def mean(cls, parts: Sequence[ResponseMoments]) -> ResponseMoments:
        """Of equally many fields in each part."""
        field, cross = (torch.stack([getattr(part, name) for part in parts]).mean(0) for name in ("field", "cross"))
        return cls(field, cross, sum(part.power for part in parts) / len(parts), parts[0].cells)

    def gain(self, radius: int | None) -> Float[Tensor, "waves m m"]:
        """Factors of the best linear approximation, as :func:`.consequence.gain` has them.

        Args:
            radius: of the ball; none, or one that holds the torus: every wave by itself.

        Raises:
            OracleError: the ball has too many components.
        """
        steps = steps_of(Lattice(self.cells.shape), max(self.cells.shape) if radius is None else radius)
        if radius is None or len(steps) == self.cells.labels.numel():
            field, cross = (self.cells.matrices(table.flatten(3)) for table in (self.field, self.cross))
            whole: Tensor = -torch.linalg.solve(field, cross, left=False)
            return whole
        check_ball(len(steps) * self.field.shape[1])
        return -self.cells.matrices(torch.stack([self._kernel(steps, label) for label in range(len(self.field))]))

    def _kernel(self, steps: Tensor, label: int) -> Float[Tensor, "channels channels sites"]:
        """Weights of the sites at some steps from one of a class, on the whole torus."""
        channels, flat = self.field.shape[1], flat_index(steps, self.cells.shape)
        nothing = self.field.new_zeros(0)
        covariance = TorusMoments(self.field, nothing, nothing, self.cells.labels).ball_covariance(steps, label)
        covariance = covariance.reshape(channels * len(steps), -1)
        cross = self.cross[label].flatten(2)[..., flat].flatten(1)
        weights = torch.linalg.solve(covariance, cross, left=False)
        kernel = weights.new_zeros(channels, channels, self.cells.labels.numel())
        placed: Tensor = kernel.index_add(-1, flat, torch.unflatten(weights, 1, (channels, -1)))
        return placed

    def remainder(self, gain: Float[Tensor, "waves m m"]) -> float:
        """Relative size of what the approximation leaves: the root of its share of the score's mean square."""
        cross = self.cells.matrices(self.cross.flatten(3))
        explained = -float((gain * cross.conj()).real.sum()) / (len(gain) * gain.shape[1])
        return max(0.0, 1 - explained / self.power) ** 0.5 if self.power else 0.0


def _centred(values: Tensor, labels: Tensor) -> Tensor:
    kinds = [labels == label for label in range(int(labels.max()) + 1)]
    means = torch.stack([values[..., kind].mean((0, 2)) for kind in kinds])
    return values - means[labels].movedim(-1, 0)
