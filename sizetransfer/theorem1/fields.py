"""Patches of a field, and what stands for a Gaussian field in the arguments of this package.

The fields themselves, and the operators on them, are in :mod:`sizetransfer.numerics.gaussian` and
:mod:`sizetransfer.numerics.bases`.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import cast

from torch import Tensor

from sizetransfer.contracts.domain import Patch, Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.numerics.gaussian import GaussianField


def patch_components(patch: Patch, shape: Sequence[int], channels: int = 1) -> list[tuple[int, ...]]:
    """Components of a patch as indices ``(channel, *site)``.

    Args:
        patch: sites, or pairs of a site and a channel.
        shape: sites along each axis of the domain.
        channels: components of a site.

    Raises:
        OracleError: the patch is empty, has a component twice, or leaves the domain.
    """
    found: list[tuple[int, ...]] = []
    for entry in patch:
        paired = len(entry) == 2 and isinstance(entry[0], tuple | list)
        site, wanted = (entry[0], [entry[1]]) if paired else (entry, range(channels))
        found += [(channel, *cast(Site, site)) for channel in wanted]
    inside = all(_is_inside(component, (channels, *shape)) for component in found)
    if not found or not inside or len(set(found)) < len(found):
        raise OracleError(
            "The patch is not a set of sites of the lattice.",
            where="patch",
            expected=f"at least one site, each once, {len(shape)} coordinates below {tuple(shape)}; or pairs of a site "
            f"and a channel below {channels}",
            got=repr(list(patch)),
            fix=f"pass for example [{(0,) * len(shape)}], the site at the origin",
        )
    return found


def _is_inside(component: Sequence[object], limits: Sequence[int]) -> bool:
    return len(component) == len(limits) and all(
        isinstance(a, numbers.Integral) and 0 <= int(a) < length for a, length in zip(component, limits, strict=True)
    )


def components_of(field: GaussianField, patch: Patch) -> list[tuple[int, ...]]:
    """Components ``(channel, *site)`` of a patch of a field; :func:`patch_components` says what is refused."""
    return patch_components(patch, field.basis.shape, field.basis.channels)


def as_field(field: Tensor | GaussianField) -> GaussianField:
    """A field; a spectrum stands for the field of one channel on a torus."""
    return field if isinstance(field, GaussianField) else GaussianField.on_torus(field)
