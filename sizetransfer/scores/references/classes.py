"""Classes of sites: those with the same condition, which share a linear filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sizetransfer.contracts.oracle import Context, Sample

# Conditions are small numbers that a change of dtype may round.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Sight:
    """What a filter may know of a site beside the field.

    Attributes:
        condition: the condition at the centre, or some of its channels alone: one filter for each value.
        mask: whether the centre is live: fitted to live centres, and zero at dead ones.
    """

    condition: bool | tuple[int, ...] = True
    mask: bool = True


def condition_values(
    sample: Sample, sight: Sight, least: int, bulk: Bool[Tensor, "*size"]
) -> Float[Tensor, "classes features"]:
    """The values of the condition that at least so many live sites of the bulk have, float64 on the processor.

    None without a condition, or where the filter does not see it; NaN in channels that it does not see.
    """
    condition, mask = sample.context.condition, sample.context.mask
    if condition is None or not sight.condition:
        return torch.zeros(0, 0, dtype=torch.float64, device="cpu")
    channels = list(range(condition.shape[1])) if isinstance(sight.condition, bool) else list(sight.condition)
    rows = condition[:, channels].movedim(1, -1)
    repeats = len(rows) if mask is None and _alike(condition) else 1
    rows = rows[:1] if repeats > 1 else rows
    counted = bulk.to(rows.device) if mask is None else bulk.to(rows.device) & mask[:, 0]
    kept = rows[counted.expand(rows.shape[:-1])]
    values, counts = torch.unique(kept.double().cpu(), dim=0, return_counts=True)
    frequent = values[counts * repeats >= least]
    found = torch.full((len(frequent), condition.shape[1]), torch.nan, dtype=torch.float64, device="cpu")
    found[:, channels] = frequent
    return found


def site_labels(context: Context, values: Tensor, batch: int) -> Int[Tensor, "batch *size"]:
    """Place of every site's condition among the values of shape ``(P, K)``; P where it is none of them.

    Channels with the value NaN are not looked at.
    """
    shape = context.domain.shape
    if not len(values):
        return torch.zeros(batch, *shape, dtype=torch.int64)
    condition = cast(Tensor, context.condition)
    seen = ~values[0].isnan()
    alike = _alike(condition)
    rows = (condition[:1] if alike else condition)[:, seen.to(condition.device)]
    labels = torch.full((len(rows), *shape), len(values), dtype=torch.int64, device=condition.device)
    for place, value in enumerate(values[:, seen].to(rows)):
        labels[(rows - value.reshape(-1, *[1] * len(shape))).abs().amax(1) < _ROUNDING] = place
    return labels.expand(batch, *shape) if alike else labels


def _alike(condition: Tensor) -> bool:
    """Whether all fields have the same condition."""
    return condition.stride(0) == 0 or bool((condition == condition[:1]).all())


def class_steps(labels: Int[Tensor, "*size"]) -> Int[Tensor, "classes *size"] | None:
    """The class of the site a displacement away from one of each class, on a torus; none where that is not settled.

    Args:
        labels: classes 0 to P - 1 of the sites of a torus.

    Returns:
        Entry ``[c, d]``: the class of j + d for every j of class c.
    """
    classes = int(labels.max()) + 1
    if not all(_settled(labels, axis, classes) for axis in range(labels.ndim)):
        return None
    steps = []
    for label in range(classes):
        places = (labels == label).nonzero()
        if not len(places):
            return None
        steps.append(labels.roll(tuple((-places[0]).tolist()), tuple(range(labels.ndim))))
    return torch.stack(steps)


def _settled(labels: Tensor, axis: int, classes: int) -> bool:
    """Whether the class of a site decides that of the next one along the axis."""
    following = labels.roll(-1, axis)
    return all(len(torch.unique(following[labels == label])) <= 1 for label in range(classes))
