"""What a check compares: every comparison is counted, and the first that fails ends the check with its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sizetransfer.contracts.errors import SizetransferError
from sizetransfer.numerics.statistics import error_of_mean
from sizetransfer_verification.conformance.tolerances import ERROR_BUDGET, SMALLEST_COUNT, Quantity, tolerance


class ViolationError(Exception):
    """A comparison failed.

    Args:
        what: the clause that does not hold, with the quantity compared.
        measured: what was found.
        allowed: the tolerance, the limit or what was expected.
        source: where that comes from.
    """

    def __init__(self, what: str, *, measured: str, allowed: str, source: str) -> None:
        super().__init__(what, measured, allowed, source)
        self.what, self.measured, self.allowed, self.source = what, measured, allowed, source

    def __str__(self) -> str:
        return f"{self.what}: measured {self.measured}, allowed {self.allowed} ({self.source})"


class NotApplicableError(Exception):
    """The check says nothing of this subject, for a reason that follows from what the subject declares."""


@dataclass
class Evidence:
    """The comparisons of one check.

    Attributes:
        comparisons: how many numbers, or tensors, were compared.
        statistical: how many of these were means against standard errors.
        smallest_margin: least distance from failure so far, as allowed/measured; infinite for equalities that hold.
        largest_deviation: largest mean so far that should vanish, in its standard errors.
    """

    comparisons: int = 0
    statistical: int = 0
    smallest_margin: float = field(default=math.inf)
    largest_deviation: float = 0.0

    def holds(self, condition: bool, what: str, *, measured: str, allowed: str, source: str = "the contract") -> None:
        """A statement that is true or not.

        Raises:
            ViolationError: it is not.
        """
        self.comparisons += 1
        if not condition:
            raise ViolationError(what, measured=measured, allowed=allowed, source=source)

    def equal(self, got: Tensor, expected: Tensor, what: str, *, source: str = "bit for bit, by the contract") -> None:
        """Two tensors of the same shape, dtype and numbers.

        Raises:
            ViolationError: they differ.
        """
        shapes = (tuple(got.shape), got.dtype), (tuple(expected.shape), expected.dtype)
        self.holds(shapes[0] == shapes[1], f"{what}, shape", measured=str(shapes[0]), allowed=str(shapes[1]))
        same = torch.equal(torch.nan_to_num(got), torch.nan_to_num(expected)) and torch.equal(
            got.isnan(), expected.isnan()
        )
        apart = 0.0 if same else float((got.double() - expected.double()).abs().nan_to_num().max())
        self.holds(same, what, measured=f"apart by up to {apart:.3g}", allowed="no difference", source=source)

    def close(
        self,
        got: Tensor,
        expected: Tensor,
        what: str,
        quantity: Quantity,
        *,
        scale: float = 0.0,
        factor: float = 1.0,
        slack: float = 0.0,
    ) -> None:
        """Two tensors within the table's tolerance of their dtype.

        Args:
            got: shape as ``expected``.
            expected: its largest absolute number, or ``scale`` if that is larger, sets the scale.
            what: the quantity, for the message.
            quantity: row of the table.
            scale: the least scale, in units of the numbers.
            factor: widens the table's entry, where a condition number says so; its source belongs into ``what``.
            slack: absolute error that is allowed besides, declared by an oracle or estimated by a quadrature.

        Raises:
            ViolationError: they differ by more, or are not finite.
        """
        self._finite(got, what)
        self._finite(expected, what)
        name = str(got.dtype).removeprefix("torch.")
        size = max(float(expected.detach().abs().max()) if expected.numel() else 0.0, scale)
        apart = float((got.detach().double() - expected.detach().double()).abs().max()) if got.numel() else 0.0
        limit = tolerance(name, quantity) * factor * size + slack
        besides = f", and {slack:.3g} declared or estimated" if slack else ""
        self.at_most(apart, limit, what, source=f"{quantity} in {name}, relative to {size:.3g}{besides}")

    def at_most(self, value: float, limit: float, what: str, *, source: str) -> None:
        """A number below a limit.

        Raises:
            ViolationError: it is above, or not a number.
        """
        self.smallest_margin = min(self.smallest_margin, limit / value if value > 0 else math.inf)
        self.holds(value <= limit, what, measured=f"{value:.4g}", allowed=f"at most {limit:.4g}", source=source)

    def at_least(self, value: float, limit: float, what: str, *, source: str) -> None:
        """A number above a limit.

        Raises:
            ViolationError: it is below, or not a number.
        """
        self.holds(value >= limit, what, measured=f"{value:.4g}", allowed=f"at least {limit:.4g}", source=source)

    def zero_mean(self, draws: Tensor, what: str) -> None:
        """Columns of independent draws whose means should vanish, each within Student's t at :data:`ERROR_BUDGET`.

        Args:
            draws: shape ``(n, k)``: n independent draws of k statistics.
            what: the identity.

        Raises:
            ViolationError: the first column, by significance, that fails.
        """
        from scipy.stats import t as student_t

        draws = draws.detach().double().reshape(len(draws), -1)
        self._finite(draws, what)
        count = len(draws)
        self.holds(count >= SMALLEST_COUNT, f"{what}, draws", measured=str(count), allowed=f"at least {SMALLEST_COUNT}")
        error = error_of_mean(draws)
        rounding = 1e-12 * draws.abs().amax(0)
        ratio = draws.mean(0).abs() / (error + rounding).clamp_min(torch.finfo(torch.float64).tiny)
        worst = int(ratio.argmax())
        self.largest_deviation = max(self.largest_deviation, float(ratio[worst]))
        limit = float(student_t.isf(ERROR_BUDGET / 2, count - 1))
        self.comparisons += draws.shape[1] - 1
        self.statistical += draws.shape[1]
        detail = f"mean {float(draws[:, worst].mean()):.4g} ± {float(error[worst]):.2g} over {count} draws"
        source = f"Student's t at {ERROR_BUDGET:g}"
        self.at_most(float(ratio[worst]), limit, f"{what} ({detail}, in standard errors)", source=source)

    def refuses(
        self,
        call: Callable[[], object],
        errors: type[SizetransferError] | tuple[type[SizetransferError], ...],
        what: str,
    ) -> None:
        """A call that must fail with an error of sizetransfer.

        Raises:
            ViolationError: it succeeds, or fails with another error.
        """
        names = " or ".join(kind.__name__ for kind in (errors if isinstance(errors, tuple) else (errors,)))
        try:
            result = call()
        except errors:
            self.comparisons += 1
            return
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        else:
            found = f"an answer, {type(result).__name__}"
        self.holds(False, what, measured=found, allowed=names)

    def _finite(self, values: Tensor, what: str) -> None:
        bad = int((~values.detach().isfinite()).sum())
        if bad:
            self.holds(False, what, measured=f"{bad} of {values.numel()} numbers not finite", allowed="finite numbers")
