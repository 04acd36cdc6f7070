"""The clean score of a teacher with a density, by automatic differentiation (paper eq. (15))."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.oracle import HasDensity, Sample


def density_and_score(log_density: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A log-density and its gradient by the field, whatever the caller's gradient mode.

    Args:
        log_density: takes fields to shape ``(B,)``, each field's number depending on that field alone.
        x: fields ``B C *S``.

    Returns:
        Shapes ``(B,)`` and ``B C *S``. Both are differentiable where ``x`` requires it and gradients are recorded, and
        detached otherwise.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[1.0, -2.0]]])
        >>> density_and_score(lambda x: -0.5 * x.square().sum((1, 2)), x)[1]
        tensor([[[-1.,  2.]]])
    """
    differentiable = x.requires_grad and torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if differentiable else x.detach().requires_grad_()
        values = log_density(x)
        (gradient,) = torch.autograd.grad(values.sum(), x, create_graph=differentiable)
    return values if differentiable else values.detach(), gradient


class ScoreOfDensity:
    """Gives a teacher that writes ``log_density`` its clean score; list it before ``Teacher`` among the bases."""

    def score(self: HasDensity, sample: Sample) -> Float[Tensor, "batch channels *size"]:
        """Clean score, the gradient of ``log_density`` by the field; differentiable where ``sample.x`` requires it.

        Raises:
            OracleError: as ``log_density`` does.
        """
        return density_and_score(lambda x: self.log_density(sample.with_x(x)), sample.x)[1]
