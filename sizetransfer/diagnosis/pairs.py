r"""Statistics of a law that fills no torus: boxes, dead sites, graphs.

They are those of the measure ``linear-references``, from pairs of live sites of the bulk
(:mod:`sizetransfer.measures.law_statistics`), so that ``diagnose`` and a run say the same of the training box.
"""

from __future__ import annotations

from collections.abc import Mapping

from sizetransfer.contracts.domain import Graph
from sizetransfer.contracts.oracle import Sample
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.measures.law_statistics import law_statistics
from sizetransfer.measures.linear_references import LARGEST_GRAPH
from sizetransfer.numerics.statistics import quotient
from sizetransfer.verdict import LawChange

PARTS = ("site_variance", "nearest_covariance", "zero_mode")


def pair_statistics(sample: Sample, dimension: int) -> Mapping[str, Quantity]:
    """Site variance, nearest covariance, S(0) and squared correlation length by name; none for too large a graph.

    Args:
        sample: independent fields.
        dimension: d of the correlation length.
    """
    domain = sample.context.domain
    if isinstance(domain, Graph) and domain.sites > LARGEST_GRAPH:
        return {}
    found = law_statistics(sample, dimension=dimension)
    return {one.part: one.quantity for one in found}


def change_of_pairs(size: int, training: Mapping[str, Quantity], larger: Mapping[str, Quantity]) -> LawChange | None:
    """How the law changes from the training size to a larger one; none where it is not known.

    Args:
        size: the larger size.
        training, larger: of :func:`pair_statistics`.
    """
    if not training or not larger:
        return None
    return LawChange(size, *(quotient(larger[part], training[part]) for part in PARTS))
