r"""Students: score models with a declared receptive radius, and the preconditioning that they share.

A student approximates the smoothed score :math:`s_\sigma(x)`. With :math:`t = \sqrt{\sigma^2 + \sigma_d^2}`
(:math:`\sigma_d` the standard deviation of the clean data), the preconditioned form is

.. math:: s_\theta(x, \sigma) = \frac{F_\theta(x/t, \sigma) - x/t}{t}.

The network sees inputs of unit variance at every noise level; with zero output it is the exact score of a white
Gaussian of variance :math:`\sigma_d^2`, and it tends to :math:`-x/\sigma^2`, the high-noise limit of every score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sizetransfer.contracts.domain import pad
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, Teacher
from sizetransfer.contracts.specs import FieldInfo


class Student(nn.Module, ABC):
    """A score model that runs on every size.

    Contract: each row of a batch alone gives the row of the batch (in eval mode); inputs are not changed; outside
    ``radius`` the Jacobian is exactly zero. Sites that ``context.mask`` calls dead influence no score and get none; a
    student that knows no dead sites refuses a mask with an :class:`~sizetransfer.contracts.errors.OracleError`.

    Attributes:
        field: the fields that it scores.
        radius: Chebyshev receptive radius in lattice steps (hops on a graph); ``None`` for a global model.
        translation_period: on a torus, the score moves with the field under translations by multiples of so many
            steps along each axis; more than one where the student lays a coarser grid over the lattice.
        ignores: what a score may depend on and the student does not look at: ``condition``, ``mask``, the noise level
            ``sigma``, the ``walls`` of an open box (taken for a field of zeros beyond them).
        reads_domain: whether the score of a site depends on the domain beyond the receptive radius, as the optimum of
            each lattice does.
        unsupported: features of torch that the student does without: ``compile``, ``func`` (the transformations of
            ``torch.func``), ``second derivatives``.
    """

    field: FieldInfo
    radius: int | None
    translation_period: int = 1
    ignores: frozenset[str] = frozenset()
    reads_domain: bool = False
    unsupported: frozenset[str] = frozenset()

    def __init__(self, field: FieldInfo, *, radius: int | None) -> None:
        super().__init__()
        self.field = field
        self.radius = radius

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        """Score of the noisy field ``x`` at noise level ``sigma`` (both in units of the field), like ``x``."""

    def fit(self, teacher: Teacher, size: int, *, seed: int) -> None:
        """Take what the student needs from the teacher's fields, in place of steps of training.

        Training calls it for students without weights that have gradients, in the arithmetic of every run. What it
        learns belongs into buffers, so that it is stored; most students learn nothing here.

        Args:
            teacher: draws the fields.
            size: of the training, as for :meth:`sizetransfer.contracts.oracle.Teacher.sample`.
            seed: names the streams of the fields.
        """

    def precondition(self, network: Callable[[Tensor], Tensor], x: Tensor, sigma: Tensor) -> Tensor:
        """Return ``(network(x/t) - x/t) / t`` with ``t = sqrt(sigma^2 + sigma_data^2)``."""
        t = torch.sqrt(expand(sigma, x) ** 2 + self.field.sigma_data**2)
        scaled = x / t
        return (network(scaled).to(x.dtype) - scaled) / t

    def pad(self, x: Float[Tensor, "batch channels *size"], width: int) -> Float[Tensor, "batch channels *padded_size"]:
        """Extend ``x`` by ``width`` sites on every side as the student's lattice goes on.

        Along a closed axis the field continues around it; beyond a wall it is zero. So a torus is padded around, an
        open box with zeros, and a cylinder each way along the axes where that is right: convolutions without padding of
        their own, of what this returns, are students of all three.

        Args:
            x: the field, or hidden channels of the same sites.
            width: sites on each side; ``k // 2`` for a convolution of odd width ``k``.

        Raises:
            OracleError: the fields of the student live on no lattice.
        """
        if self.field.geometry != "lattice":
            raise OracleError(
                "Only a field on a lattice has sides to extend.",
                where=f"{type(self).__name__}.pad",
                expected="a student whose field.geometry is lattice",
                got=self.field.geometry,
                fix="refuse such fields in the specification's build, or pass messages along context.domain's edges",
            )
        return pad(x, width, periodic=self.field.closed_axes)
