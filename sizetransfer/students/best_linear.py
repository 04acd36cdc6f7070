r"""The best linear score of receptive radius r for any teacher: what a convolution would do.

.. math:: \hat s_i(x, \sigma) = -\big[(C_{BB} + \sigma^2)^{-1}(x_B - \mu_B)\big]_i

with the covariance C of the teacher's fields around a site, one for every value of the condition, a sublattice say
(:mod:`sizetransfer.scores.references`). It has no gradients: instead of steps of training it is fitted, once, to fields
of the teacher at the training size (:meth:`BestLinearStudent.fit`), and runs at every size. What it keeps are the
second moments, in double precision whatever its dtype, so that one fit serves every noise level; a diagonalisation for
each class turns them into filters. Before it is fitted it is the best score of white noise, :math:`-x/(\sigma_d^2 +
\sigma^2)`.

On a torus that is smaller than the ball, and without a radius, the filter sees each site once, and its kernel is placed
as it is on larger lattices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.domain import Graph
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, Teacher, draw_fields
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import FieldInfo, Geometry, StudentSpec
from sizetransfer.contracts.student import Student
from sizetransfer.scores.references.filters import AnyFilter
from sizetransfer.scores.references.moments import GraphMoments, Moments, TorusMoments, WindowMoments, estimate_moments

_MOMENTS: Mapping[str, Callable[..., Moments]] = {
    "products": TorusMoments,
    "covariances": WindowMoments,
    "covariance": GraphMoments,
}


class BestLinearSpec(StudentSpec):
    """Best linear score of a given radius, fitted to the teacher's fields at the training size."""

    geometries: ClassVar[tuple[Geometry, ...]] = ("lattice", "graph")

    kind: Literal["best-linear"] = "best-linear"
    radius: int | None = Field(
        4, ge=0, description="receptive radius r: Chebyshev on a lattice, hops on a graph; none: the whole domain"
    )
    fields: int = Field(512, ge=2, description="independent fields that it is fitted to")

    def build(self, field: FieldInfo) -> BestLinearStudent:
        if field.geometry == "lattice" and field.dim > 3:
            raise _unknown("one to three dimensions", f"{field.dim} dimensions", "choose a teacher of fewer dimensions")
        if field.geometry == "lattice" and self.radius is None and not field.periodic:
            raise _unknown("a radius, for fields with walls", "none", "give a radius")
        return BestLinearStudent(self, field)


def _same_edges(one: Tensor, other: Tensor) -> bool:
    """Whether two lists of edges are those of one graph, in whatever order and direction."""
    ours, theirs = (sorted(edges.sort(dim=1).values.tolist()) for edges in (one, other))
    return ours == theirs


def _unknown(expected: str, got: str, fix: str) -> SpecError:
    where = "best-linear, field and radius"
    return SpecError(
        "The best linear score is not there for such fields.", where=where, expected=expected, got=got, fix=fix
    )


class BestLinearStudent(Student):
    """Best linear score of a teacher's fields (see the module's formula).

    Its buffers are the moments, by the names of their dataclass (:mod:`sizetransfer.scores.references.moments`), and on
    a graph the edges besides.
    """

    # Each noise level gets its filter once, so the shapes within depend on the values of sigma.
    unsupported = frozenset({"func", "compile"})
    ignores = frozenset({"condition", "walls"})

    def __init__(self, spec: BestLinearSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=spec.radius)
        self.spec = spec
        self._filter: AnyFilter | None = None

    def fit(self, teacher: Teacher, size: int, *, seed: int) -> None:
        """Estimate the moments from the teacher's fields at one size; see :meth:`.Student.fit`."""
        with torch.no_grad():
            sample = draw_fields(teacher, self.spec.fields, size, generator=stream(seed, "best-linear", size))
            margin = self.radius if teacher.field.crop else None  # beyond the sides of a crop nothing is known
            moments = estimate_moments(sample, self.radius, margin=margin)
        kept = {item.name: getattr(moments, item.name) for item in fields(moments)}  # type: ignore[arg-type]
        graph = kept.pop("graph", None)
        self._keep(kept if graph is None else {**kept, "edges": graph.edges})

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        if not self._buffers:
            score = -x / (expand(sigma, x) ** 2 + self.field.sigma_data**2)
            return score if context.mask is None else score * context.mask
        if self._filter is None:
            # Kept for later calls, so it must not be of an inference mode that the first caller was in.
            with torch.inference_mode(False):
                self._filter = self._moments().filter(self.radius)
        if "edges" in self._buffers:
            self._check_graph(context)
        return self._filter.score(x, sigma, context)

    def _check_graph(self, context: Context) -> None:
        """Refuse another graph than that of the fit, also one whose sites are numbered in another way, and dead sites.

        Raises:
            OracleError: with what it is.
        """
        domain, edges = context.domain, self._buffers["edges"]
        same = isinstance(domain, Graph) and edges is not None and _same_edges(domain.edges, edges)
        if same and context.mask is None:
            return
        raise OracleError(
            "A linear score on a graph knows that graph alone, with all sites live.",
            where="best-linear, context",
            expected=f"the graph with {0 if edges is None else len(edges)} edges that it was fitted on, and no mask",
            got=f"{type(domain).__name__} of shape {domain.shape}, {'a mask' if same else 'other edges'}",
            fix="fit a student on this graph",
        )

    def _moments(self) -> Moments:
        tensors: dict[str, Any] = {name: tensor.cpu() for name, tensor in self.named_buffers()}
        if "edges" in tensors:
            tensors["graph"] = Graph(len(tensors["means"]), tensors.pop("edges"))
        (kind,) = (moments for name, moments in _MOMENTS.items() if name in tensors)
        return kind(**tensors)

    def _keep(self, tensors: Mapping[str, Tensor]) -> None:
        self._buffers.clear()
        for name, tensor in sorted(tensors.items()):  # a file of weights keeps no order
            self.register_buffer(name, tensor.detach().clone())
        self._filter = None
        seen = {"condition"} if len(tensors.get("values", ())) > 0 else set()
        # Behind a wall it takes the mean, which is a field of zeros only where the mean is.
        seen |= {"walls"} if bool(tensors["means"].any()) else set()
        self.ignores = type(self).ignores - seen

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BestLinearStudent:
        """Move the moments with the module, and leave their precision as it is."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, moved in self._buffers.items():
            exact = before[name]
            if moved is not None and exact is not None and moved.dtype != exact.dtype:
                self._buffers[name] = exact.to(moved.device)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        """Take moments of whatever shape: how many classes there are is not known before the fit."""
        own = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        self._keep({name: value for name, value in own.items() if "." not in name})
        super()._load_from_state_dict(state_dict, prefix, *others)
