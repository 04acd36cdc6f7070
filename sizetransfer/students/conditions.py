"""The condition channels that a student reads, checked against what it was built for."""

from __future__ import annotations

from torch import Tensor

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import Context


def condition_channels(context: Context, channels: int, *, like: Tensor) -> list[Tensor]:
    """The context's condition as a list of no tensor or of one, of shape ``B K *S``, for concatenation.

    Args:
        context: what a site rule may see.
        channels: K, the channels that the student was built for; zero if it reads none.
        like: a field with the dtype and device.

    Raises:
        OracleError: the context has another number of channels.
    """
    if not channels:
        return []
    found = 0 if context.condition is None else context.condition.shape[1]
    if context.condition is None or found != channels:
        raise OracleError(
            "The context does not have the condition channels that the student was built for.",
            where="Context.condition",
            expected=f"{channels} channels",
            got=f"{found} channels",
            fix="pass the context of the teacher's sample, or build the student with condition: none",
        )
    return [context.condition.to(like)]
