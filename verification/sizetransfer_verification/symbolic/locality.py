r"""Proposition 1: a density made of local terms has a local score.

:math:`\log p(x)=\sum_kf_k(x_{B(k,R)})` with a function :math:`f_k` of the ball around each site, of which nothing is
known: sympy's undefined functions. The mixed derivative of one is zero exactly if it does not have both sites as
arguments, and derivatives of different functions cannot cancel; so the range of the score is found by differentiating.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

from sizetransfer_verification.symbolic.proof import Equations, Formula, Identity, NegativeControl


@dataclass(frozen=True)
class _Graph:
    """A finite domain with its distances.

    Attributes:
        name: for the labels of equations.
        distances: the distance of each pair of sites.
    """

    name: str
    distances: Sequence[Sequence[int]]

    def ball(self, site: int, radius: int) -> list[int]:
        """The sites within a distance of a site."""
        return [other for other, distance in enumerate(self.distances[site]) if distance <= radius]

    def score_range(self, radius: int) -> int:
        """The largest distance at which the score depends on a site, for a log-density of terms of this radius."""
        x = [sp.Symbol(f"x_{i}") for i in range(len(self.distances))]
        terms = [sp.Function(f"f_{k}")(*(x[j] for j in self.ball(k, radius))) for k in range(len(x))]
        scores = [[part for part in (term.diff(x_i) for term in terms) if part != 0] for x_i in x]
        pairs = itertools.combinations_with_replacement(range(len(x)), 2)  # mixed derivatives are symmetric
        felt = ((i, j) for i, j in pairs if any(part.diff(x[j]) != 0 for part in scores[i]))
        return max(self.distances[i][j] for i, j in felt)


def _lattice(size: int, dimension: int, *, periodic: bool) -> _Graph:
    """A torus or an open box with the Chebyshev distance of paper §4.1."""
    sites = list(itertools.product(range(size), repeat=dimension))

    def distance(here: tuple[int, ...], there: tuple[int, ...]) -> int:
        steps = [abs(a - b) for a, b in zip(here, there, strict=True)]
        return max(min(step, size - step) if periodic else step for step in steps)

    kind = "torus" if periodic else "open box"
    return _Graph(f"{kind} {size}^{dimension}", [[distance(here, there) for there in sites] for here in sites])


def _tree(levels: int) -> _Graph:
    """A binary tree with its graph distance; site k has the parent (k - 1) // 2."""

    def ancestors(site: int) -> list[int]:
        return [site, *(ancestors((site - 1) // 2) if site else [])]

    def distance(here: int, there: int) -> int:
        up, down = ancestors(here), ancestors(there)
        return len(set(up) ^ set(down))

    sites = range(2**levels - 1)
    return _Graph(f"binary tree of {levels} levels", [[distance(here, there) for there in sites] for here in sites])


_CASES = (
    (_lattice(8, 1, periodic=False), 1),
    (_lattice(8, 1, periodic=False), 3),
    (_lattice(9, 1, periodic=True), 1),
    (_lattice(9, 1, periodic=True), 2),
    (_lattice(5, 2, periodic=False), 1),
    (_lattice(5, 2, periodic=False), 2),
    (_lattice(5, 2, periodic=True), 1),
    (_tree(3), 1),
    (_tree(3), 2),
)


def _prove_range(formula: Formula) -> Equations:
    for graph, radius in _CASES:
        yield f"{graph.name}, R={radius}", sp.Integer(graph.score_range(radius)) - formula(radius)


IDENTITIES = (
    Identity(
        name="local-score",
        title="Proposition 1: a local log-density has a local score, of exactly twice the range",
        statement=r"\log p(x)=\sum_kf_k(x_{B(k,R)})\ \Rightarrow\ \frac{\partial s_i}{\partial x_j}=0"
        r"\ \text{ for } d(i,j)>2R,\ \text{ and for no smaller distance than } 2R \text{ in general}",
        assumptions=(
            "any differentiable terms, as undefined functions",
            "open chains of 8 sites (R = 1, 3), rings of 9 (R = 1, 2), binary trees of 3 levels (R = 1, 2)",
            "with the Chebyshev distance: open boxes of 5 × 5 sites (R = 1, 2), a torus of 5 × 5 (R = 1)",
            "on a torus of width above 4R",
        ),
        source="paper, Proposition 1",
        prover=_prove_range,
        formula=lambda radius: 2 * radius,
        negative_controls=(
            NegativeControl("range-of-a-term", r"R", lambda radius: radius),
            NegativeControl("one-less", r"2R-1", lambda radius: 2 * radius - 1),
            NegativeControl("not-sharp", r"2R+1", lambda radius: 2 * radius + 1),
        ),
    ),
)
