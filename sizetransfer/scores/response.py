r"""How a score answers to a distant perturbation: Jacobian rows, finite differences and the sites to look at.

For a score field s and a reference site i (paper eq. (5) and (17)):

- Jacobian row :math:`J_{ij} = \partial s_i/\partial x_j`, by one backward pass;
- finite-difference response :math:`\Delta_u s_i = [s_i(x + hu) - s_i(x - hu)]/2h` to a perturbation u of a region
  :math:`\Omega`. For random u with independent signs, :math:`E|\Delta_u s_i|^2 = \sum_{j\in\Omega} J_{ij}^2`, the
  squared Frobenius norm of the row over the region; a uniform u instead sums signed entries, which may cancel.

Tails and effective ranges follow from their sums over shells, :mod:`sizetransfer.numerics.shells`.

Where a context has a mask, dead sites take no part: they are neither perturbed nor counted, and reference sites are
live ones, for every field its own (:func:`own_sites`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Site
from sizetransfer.contracts.errors import NonFiniteError, OracleError, SpecError
from sizetransfer.contracts.oracle import Context, HasScore, Sample, Teacher
from sizetransfer.contracts.specs import Spec
from sizetransfer.contracts.student import Student

ScoreFunction = Callable[[Tensor], Tensor]
"""A score as a function of the field alone: ``B C *S`` to ``B C *S``."""


class Region(Spec):
    """Sites whose Chebyshev distance from a reference site lies in ``[nearest, farthest]``."""

    nearest: int = Field(ge=0)
    farthest: int = Field(ge=0)

    def mask(self, domain: Domain, site: Site) -> Bool[Tensor, "*size"]:
        """The region around ``site``, as a mask of shape ``*S``.

        Raises:
            SpecError: no site lies that far away.
        """
        return self.masks(domain, torch.tensor([site]))[0]

    def require(self, domain: Domain, sites: int, margin: int) -> None:
        """Refuse a lattice or graph on which the region is empty around every reference site, before anything is drawn.

        Args:
            domain: of the fields.
            sites: how many reference sites there are.
            margin: steps that they keep from the walls of an open box.

        Raises:
            SpecError: no site lies that far from any of them.
        """
        self.masks(domain, torch.tensor(reference_sites(domain, sites, margin)))

    def masks(self, domain: Domain, sites: Int[Tensor, "n axes"]) -> Bool[Tensor, "n *size"]:
        """The regions around several sites; empty where, in a box, no site lies that far from one of them.

        Raises:
            SpecError: no site lies that far from any of them.
        """
        distances = torch.stack([domain.distance(tuple(site)) for site in sites.tolist()])
        masks = (distances >= self.nearest) & (distances <= self.farthest)
        if not masks.any():
            raise SpecError(
                "A response region is empty.",
                where=f"region {{nearest: {self.nearest}, farthest: {self.farthest}}} on {domain.shape}",
                expected=f"0 <= nearest <= farthest, and nearest at most {int(distances.max())}",
                got=f"no site at distance {self.nearest} to {self.farthest}",
                fix="choose a nearer region or a larger lattice",
            )
        return masks


def teacher_score(teacher: Teacher, sample: Sample) -> ScoreFunction:
    """The teacher's clean score as a function of the field, in the context of ``sample``.

    Raises:
        OracleError: the teacher does not know its clean score.
    """
    if not isinstance(teacher, HasScore):
        raise OracleError(
            "The teacher has no clean score.",
            where=type(teacher).__name__,
            expected="the capability HasScore",
            fix="choose measures that this teacher can answer",
        )
    oracle: HasScore = teacher
    return lambda x: oracle.score(sample.with_x(x))


def student_score(student: Student, sigma: float, context: Context) -> ScoreFunction:
    """The student's score at one noise level as a function of the field."""
    return lambda x: student(x, x.new_full((x.shape[0],), sigma), context.to(x))


def require_finite(values: Tensor, where: str) -> Tensor:
    """Return ``values``, which a score has led to.

    Raises:
        NonFiniteError: one of them is infinite or not a number.
    """
    if not values.isfinite().all():
        raise NonFiniteError(
            "A score is not finite.",
            where=where,
            expected="finite scores of teacher and student",
            got=f"{int((~values.isfinite()).sum())} numbers of {values.numel()} that are not finite",
            fix="look at the training history of this trial, or train longer with a lower rate",
        )
    return values


def jacobian_row(
    score: ScoreFunction, x: Float[Tensor, "batch channels *size"], site: Site, channel: int = 0
) -> Float[Tensor, "batch channels *size"]:
    r""":math:`\partial s_{c,i}(x)/\partial x` at ``site`` i and ``channel`` c, for every field of the batch."""
    return jacobian_rows(score, x, torch.tensor([site] * len(x)), channel)


def jacobian_rows(
    score: ScoreFunction,
    x: Float[Tensor, "batch channels *size"],
    sites: Int[Tensor, "batch axes"],
    channel: int = 0,
) -> Float[Tensor, "batch channels *size"]:
    """As :func:`jacobian_row`, at a site of its own for every field."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (row,) = torch.autograd.grad(at_sites(score(x), sites)[:, channel].sum(), x, materialize_grads=True)
    return row


def at_sites(
    values: Float[Tensor, "batch channels *size"], sites: Int[Tensor, "batch axes"]
) -> Float[Tensor, "batch channels"]:
    """The numbers of one site of every field."""
    return values[(torch.arange(len(sites)), slice(None), *sites.T)]


def reference_sites(domain: Domain, count: int, margin: int = 0) -> Sequence[Site]:
    """``count`` sites of the bulk, alternating between the sublattices, evenly spread over the domain.

    Raises:
        SpecError: the bulk of that margin has fewer sites.
    """
    bulk = domain.bulk(margin).nonzero()
    parities = bulk.sum(1) % 2
    groups = [bulk[parities == parity] for parity in (0, 1)]
    available = sum(map(len, groups))
    if count > available:
        raise SpecError(
            "There are not enough reference sites in the bulk.",
            where=f"sites on {domain.shape}, margin {margin}",
            expected=f"at most {available}",
            got=str(count),
            fix="ask for fewer sites, a smaller margin or a larger lattice",
        )
    first, second = sorted(groups, key=len, reverse=True)
    from_second = min(count // 2, len(second))
    chosen = [_spread(first, count - from_second), _spread(second, from_second)]
    return [site for pair in itertools.zip_longest(*chosen) for site in pair if site is not None]


def own_sites(
    context: Context, wanted: Int[Tensor, "batch sites axes"], margin: int = 0
) -> tuple[Int[Tensor, "batch sites axes"], Bool[Tensor, "batch"]]:
    """Live reference sites of every field: for each wanted site the nearest live one of the bulk, each taken once.

    Sites at an even number of steps, those of the same sublattice, come before the others. Without a mask the wanted
    sites come back.

    Args:
        context: of B fields.
        wanted: n sites for each of them, of the bulk of that margin.
        margin: as for :func:`reference_sites`.

    Returns:
        The sites, and which fields have n live ones in the bulk; the sites of the others are the wanted ones.

    Raises:
        SpecError: no field has.
    """
    kept = torch.ones(len(wanted), dtype=torch.bool)
    if context.mask is None:
        return wanted, kept
    bulk, found = context.domain.bulk(margin), wanted.clone()
    for row, mask in enumerate(context.mask[:, 0].cpu()):
        candidates = mask & bulk
        kept[row] = int(candidates.sum()) >= wanted.shape[1]
        for index in range(wanted.shape[1] if kept[row] else 0):
            chosen = _nearest(candidates, context.domain, tuple(wanted[row, index].tolist()))
            candidates[chosen] = False
            found[row, index] = torch.tensor(chosen)
    if not kept.any():
        raise SpecError(
            "No field has enough live sites to be probed.",
            where=f"reference sites on {context.domain.shape}, margin {margin}",
            expected=f"at least {wanted.shape[1]} live sites that far from the walls, in one field of {len(wanted)}",
            got=f"at most {max(int((mask & bulk).sum()) for mask in context.mask[:, 0].cpu())}",
            fix="choose a smaller margin, fewer sites, a larger lattice or more fields",
        )
    return found, kept


def _nearest(candidates: Tensor, domain: Domain, site: Site) -> Site:
    steps = domain.distance(site, "graph")
    rank = steps + (domain.sites + 1) * (steps % 2) + 4 * (domain.sites + 1) * ~candidates
    return tuple(int(index) for index in torch.unravel_index(rank.argmin(), domain.shape))


def _spread(sites: Tensor, count: int) -> list[Site]:
    """``count`` different sites, evenly spread over the list."""
    return [tuple(sites[index * len(sites) // count].tolist()) for index in range(count)]
