r"""Teachers: distributions over fields that know their own exact scores, densities and posterior covariances.

For a teacher with clean density :math:`p_0` on fields ``x`` of shape ``B C *S``, at noise :math:`\sigma`
(:math:`v = \sigma^2`):

- clean score :math:`s_0(x) = \nabla\log p_0(x)` (paper eq. (15));
- smoothed score :math:`s_v(x) = \nabla\log p_v(x) = (E[X_0|x] - x)/v` (Tweedie, paper eq. (7));
- response :math:`\partial s_i/\partial x_j = v^{-2}\,\mathrm{Cov}(X_{0i}, X_{0j}|x) - v^{-1}\delta_{ij}` (paper
  eq. (9)).

A teacher implements the capability protocols that it can answer; measures ask for the protocols they need.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import (
    ClassVar,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    runtime_checkable,
)

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sizetransfer.contracts.arithmetic import arithmetic
from sizetransfer.contracts.domain import Domain, Lattice, Patch, Site
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.randomness import Stream, branch_of
from sizetransfer.contracts.specs import FieldInfo

P = ParamSpec("P")
R = TypeVar("R")

Split = Literal["training", "held out"]
"""A share of the independent fields of a teacher that has finitely many; no field is in both."""


@dataclass(frozen=True)
class Context:
    """What a site rule may see beside the field.

    Attributes:
        domain: the sites and their distances.
        condition: features of discrete labels or of the sublattice, shape ``B K *S``, or none.
        mask: true where the continuous coordinate is live, shape ``B 1 *S``, or none where all sites are.
    """

    domain: Domain
    condition: Float[Tensor, "batch features *size"] | None = None
    mask: Bool[Tensor, "batch 1 *size"] | None = None

    def to(self, like: Tensor) -> Context:
        """The same context on the device, and with the dtype, of ``like``."""
        return replace(
            self,
            condition=None if self.condition is None else self.condition.to(like),
            mask=None if self.mask is None else self.mask.to(like.device),
        )

    def counted(self, radius: int | None) -> Bool[Tensor, "#batch 1 *size"] | None:
        """Sites that count in losses and measures of a score of this radius; none where all of them do.

        They are live, and in a crop so far from its sides that the score sees nothing beyond them.

        Raises:
            OracleError: a score without a radius on a crop.
        """
        known = self.domain.counted(radius)
        if known is None:
            return self.mask
        return known[None, None] if self.mask is None else self.mask & known.to(self.mask.device)

    def rows(self, index: slice) -> Context:
        """The context of some rows of the batch."""
        return replace(
            self,
            condition=None if self.condition is None else self.condition[index],
            mask=None if self.mask is None else self.mask[index],
        )


@dataclass(frozen=True)
class Sample:
    """Fields drawn from a teacher, with their context.

    Attributes:
        x: the fields, shape ``B C *S``.
        context: what a student may see beside them.
        labels: discrete variables by name, each of shape ``B *S`` and dtype int64.
    """

    x: Float[Tensor, "batch channels *size"]
    context: Context
    labels: Mapping[str, Tensor] = field(default_factory=dict)

    def rows(self, index: slice) -> Sample:
        """Some rows of the batch."""
        labels = {name: values[index] for name, values in self.labels.items()}
        return Sample(self.x[index], self.context.rows(index), labels)

    def with_x(self, x: Tensor) -> Sample:
        """The sample with other fields in the same context."""
        return replace(self, x=x, context=self.context.to(x))


@dataclass(frozen=True)
class Division:
    """A division of the live sites of some fields into classes.

    Attributes:
        names: of the classes, in the words of the field that the teacher is from.
        labels: index of the class of every site, int64 of shape ``B *S``, and -1 on sites of no class.
    """

    names: tuple[str, ...]
    labels: Tensor


@dataclass(frozen=True)
class SiteClasses:
    """Sites that are alike, and pairs of sites that are alike, by what the context says of them.

    Attributes:
        sites: divisions of the sites by name, by ``type`` say.
        pairs: pairs of sites by the name of their class, each pair once: the row of the batch and the indices of two
            sites into the flattened ``*S``, int64 of shape ``(3, n)``.
    """

    sites: Mapping[str, Division]
    pairs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Exactness:
    """The declared error model of an oracle.

    Attributes:
        kind: ``exact`` (to rounding), ``quadrature`` (to ``epsilon``) or ``monte_carlo`` (with standard errors).
        epsilon: bound on the absolute error of a quadrature.
    """

    kind: Literal["exact", "quadrature", "monte_carlo"] = "exact"
    epsilon: float = 0.0


class Teacher(nn.Module, ABC):
    """A distribution over fields, the same rule at every size.

    Sites that the mask of a sample's context calls dead are no coordinates of the law: they hold a field of zero, and
    scores are exactly zero there.

    Attributes:
        field: dimension, channels, boundary, condition channels and scale of its fields.
        exactness: the declared error model of each oracle, by method name.
        translation_period: translations by so many lattice steps along any axis leave the law unchanged, the condition
            moving along; none: nothing is declared.
        even: whether the law is unchanged by ``x -> -x``.
        usual_sizes: sizes at which its oracles of noisy fields answer within seconds; none: whatever suits the domain.
        draws_fields_apart: whether all its random numbers come through
            :func:`sizetransfer.contracts.randomness.normal`, ``uniform`` and ``integers``, batch axis first, so that a
            field of a stream depends on its number alone and not on the batch that it is drawn in. Of other teachers a
            measure draws fields one by one.
    """

    field: FieldInfo
    exactness: Mapping[str, Exactness]
    translation_period: int | None = None
    even: bool = False
    usual_sizes: tuple[int, ...] | None = None
    draws_fields_apart: ClassVar[bool] = False

    def __init__(self, field: FieldInfo) -> None:
        super().__init__()
        self.field = field
        self.exactness = {}
        self.register_buffer("_anchor", torch.zeros((), dtype=torch.float32), persistent=False)

    @property
    def anchor(self) -> Tensor:
        """A scalar with the teacher's dtype and device."""
        anchor: Tensor = self.get_buffer("_anchor")
        return anchor

    def domain(self, size: int) -> Domain:
        """The domain with ``size`` sites along each axis."""
        return Lattice((size,) * self.field.dim, self.field.periodic, self.field.closed, self.field.crop)

    def check_size(self, size: int) -> None:
        """Refuse a size on which the teacher is not defined.

        Raises:
            OracleError: with the sizes that are allowed.
        """
        if size < 2:
            raise OracleError(
                "The lattice is too small.",
                where=f"{type(self).__name__}, size",
                expected="at least 2 sites along each axis",
                got=str(size),
                fix="raise the size",
            )

    @abstractmethod
    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        """Draw ``batch`` independent fields with ``size`` sites along each axis.

        Raises:
            OracleError: the teacher is not defined at that size.
        """

    @property
    def notes(self) -> tuple[str, ...]:
        """What it found where it was not told, of data say, in words for the user of a run."""
        return ()

    def split(self, part: Split) -> Teacher:
        """The teacher of the fields that students are trained on, or of those that measures are taken of.

        It is the teacher itself unless it has finitely many fields (data): then the two parts have none in common, and
        a call, or all calls with one stream of a measure, give no field twice.
        """
        return self

    def independent_fields(self, size: int) -> int | None:
        """How many independent fields it has of a size; none: as many as are asked for."""
        return None

    def frozen(self) -> Self:
        """Switch off gradients of the teacher's parameters and return the teacher."""
        self.requires_grad_(False)
        return self.eval()


def draw_fields(teacher: Teacher, batch: int, size: int, *, generator: torch.Generator) -> Sample:
    """Draw ``batch`` fields; of a :class:`~sizetransfer.contracts.randomness.Stream` each depends on its number alone.

    Args:
        teacher: draws them in one call if it declares ``draws_fields_apart``, else in a call for each field of a
            stream.
        batch, size: as for :meth:`Teacher.sample`.
        generator: a stream; another generator goes to the teacher as it is.

    Raises:
        OracleError: the teacher is not defined at that size.
    """
    own = branch_of(generator, "fields")
    if not isinstance(own, Stream) or _draws_apart(teacher):
        return teacher.sample(batch, size, generator=own)
    return joined([teacher.sample(1, size, generator=own.fields(row, 1)) for row in range(batch)])


def redraw_fields(teacher: HasConditionalSamples, sample: Sample, *, generator: torch.Generator) -> Sample:
    """As :func:`draw_fields`, in the context of a sample."""
    own = branch_of(generator, "fields")
    if not isinstance(own, Stream) or _draws_apart(teacher):
        return teacher.resample(sample, generator=own)
    rows = range(len(sample.x))
    return joined([teacher.resample(sample.rows(slice(r, r + 1)), generator=own.fields(r, 1)) for r in rows])


def _draws_apart(teacher: object) -> bool:
    """Whether a teacher's class declares it, and no subclass that draws in its own way says nothing of it."""
    for kind in type(teacher).__mro__:
        if "draws_fields_apart" in vars(kind):
            return bool(vars(kind)["draws_fields_apart"])
        if {"sample", "resample"} & vars(kind).keys():
            return False
    return False


def joined(samples: Sequence[Sample]) -> Sample:
    """Samples on one domain as one."""
    contexts = [sample.context for sample in samples]
    context = replace(
        contexts[0],
        condition=_cat([context.condition for context in contexts]),
        mask=_cat([context.mask for context in contexts]),
    )
    labels = {name: torch.cat([sample.labels[name] for sample in samples]) for name in samples[0].labels}
    return Sample(torch.cat([sample.x for sample in samples]), context, labels)


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def in_arithmetic_of_teacher(
    function: Callable[Concatenate[Teacher, P], R],
) -> Callable[Concatenate[Teacher, P], R]:
    """A function of a teacher that computes as any run does (:mod:`.contracts.arithmetic`), in the teacher's dtype.

    It leaves the global random generators to those that it calls.
    """

    @functools.wraps(function)
    def computed(teacher: Teacher, *arguments: P.args, **named: P.kwargs) -> R:
        with arithmetic(teacher.anchor.dtype, teacher.anchor.device, generators=False):
            return function(teacher, *arguments, **named)

    return cast(Callable[Concatenate[Teacher, P], R], computed)


@runtime_checkable
class HasDensity(Protocol):
    """Knows its normalised log-density."""

    def log_density(self, sample: Sample) -> Float[Tensor, "batch"]:
        """Natural logarithm of the density, shape ``(B,)``."""
        ...


@runtime_checkable
class HasEnergy(Protocol):
    """Knows its log-density up to a constant that may depend on the size."""

    def energy(self, sample: Sample) -> Float[Tensor, "batch"]:
        """Minus the log-density up to that constant, shape ``(B,)``."""
        ...


@runtime_checkable
class HasLatent(Protocol):
    """Is the image of a standard normal field of the same shape under an invertible map."""

    def push_forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map latent fields to fields; return them and ``log |det dx/dz|``, shape ``(B,)``."""
        ...

    def pull_back(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map fields to latent fields; return them and ``log |det dx/dz|``, shape ``(B,)``."""
        ...


@runtime_checkable
class HasScore(Protocol):
    """Knows its clean score."""

    def score(self, sample: Sample) -> Float[Tensor, "batch channels *size"]:
        """Gradient of the log-density by the field, like ``sample.x``; differentiable where x requires it."""
        ...


@runtime_checkable
class HasSmoothedScore(Protocol):
    """Knows the score of the noisy field."""

    def smoothed_score(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """Score at noise ``sigma`` of shape ``(B,)``, like ``x``."""
        ...


@runtime_checkable
class HasPosterior(Protocol):
    """Knows mean and covariance of the clean field given the noisy one."""

    def posterior_mean(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """E[X_0 | x], like ``x``."""
        ...

    def posterior_covariance(self, x: Tensor, sigma: Tensor, context: Context, site: Site) -> Tensor:
        """Cov(X_0 at ``site``, X_0 | x), shape ``(B, C, C, *S)``."""
        ...


@runtime_checkable
class HasReach(Protocol):
    """Answers about noisy fields by a computation that some sizes make too long."""

    def check_reach(self, size: int, batch: int) -> None:
        """Refuse so many fields of a size that are beyond the teacher's limits, without computing anything.

        Raises:
            OracleError: with the estimate and the limits.
        """
        ...


@runtime_checkable
class HasLocalPosterior(Protocol):
    """Knows the posterior of a site given the noisy field within a radius of it, and with it the best local score.

    Among all functions of the ball, ``(E[X_0i | x in the ball] - x_i)/v`` is nearest to the smoothed score, and the
    covariance given the ball is its response as the posterior covariance is that of the smoothed score.
    """

    def local_posterior_mean(self, x: Tensor, sigma: Tensor, context: Context, site: Site, radius: int) -> Tensor:
        """E[X_0 at ``site`` | x within the Chebyshev ``radius`` of it], shape ``(B, C)``."""
        ...

    def local_posterior_covariance(self, x: Tensor, sigma: Tensor, context: Context, site: Site, radius: int) -> Tensor:
        """Cov(X_0 at ``site``, X_0 | x in the ball) on the ball and zero outside, shape ``(B, C, C, *S)``."""
        ...


@runtime_checkable
class HasCovariance(Protocol):
    """Is a zero-mean Gaussian law and knows its covariance; everything else follows from it."""

    def covariance(self, size: int, sites: Tensor) -> Tensor:
        """Clean covariance between sites of the domain of that size.

        Args:
            size: as for :meth:`Teacher.sample`.
            sites: n flat indices into ``*S``, integers of shape ``(n,)``.

        Returns:
            Shape ``(C, n, C, n)``, float64, on the processor.
        """
        ...


@runtime_checkable
class HasCovarianceSpectrum(Protocol):
    """Is a zero-mean Gaussian law on a torus that no translation changes."""

    def covariance_spectrum(self, size: int) -> Tensor:
        """Covariance on the grid of ``torch.fft.fftn``: ``*S`` for one channel, otherwise blocks ``C C *S``."""
        ...


@runtime_checkable
class HasConditionalSamples(Protocol):
    """Draws other fields in the context of a sample."""

    def resample(self, sample: Sample, *, generator: torch.Generator) -> Sample:
        """A sample with the same labels and context whose fields are drawn anew from their law given these."""
        ...


@runtime_checkable
class HasSiteClasses(Protocol):
    """Knows which sites of a sample are alike, given its labels."""

    def site_classes(self, sample: Sample) -> SiteClasses:
        """Divisions of the sites, and classes of pairs of sites, of every field of the sample."""
        ...


@runtime_checkable
class Certificate(Protocol):
    """Bounds that hold for all fields of one size."""

    @property
    def size_uniform(self) -> bool:
        """Whether the budget stays bounded as the size grows."""
        ...

    def weights(self, patch: Patch, v: Float[Tensor, "levels"], vm: float) -> Float[Tensor, "levels *size"]:
        """Influence weights of a patch at variances ``v``."""
        ...

    def budget(self, vm: float, vx: float, *, sites: int = 1) -> Quantity:
        """What a drift error of one everywhere between two variances can cost a patch of so many sites."""
        ...

    def sufficient_radius(self, sigma: float, tolerance: float = 0.1) -> Quantity:
        """Smallest radius whose best score is certified to have at most that relative error."""
        ...


@runtime_checkable
class HasCertificate(Protocol):
    """Knows bounds that hold for every field."""

    def certificate(self, size: int) -> Certificate | None:
        """The certificate of one size; none where its parameters allow none."""
        ...
