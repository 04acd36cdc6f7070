"""Teachers with one defect each, beside the healthy ones: a mixture of two wells, Gaussian fields and local flows."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import torch
from mutant import Mutant
from teacher_kills import KILLS

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, Exactness, Sample, Teacher
from sizetransfer.contracts.randomness import normal
from sizetransfer.contracts.specs import FieldInfo, TeacherSpec
from sizetransfer.systems.flow.teacher import FlowTeacher, FlowTeacherSpec
from sizetransfer.systems.gaussian.teacher import GaussianTeacher, GaussianTeacherSpec
from sizetransfer.systems.phi4.teacher import Phi4Teacher, Phi4TeacherSpec
from sizetransfer_verification.conformance import TeacherSubject

# --- healthy --------------------------------------------------------------------------------------------------------


class WellsSpec(TeacherSpec):
    """Two wells of unequal weight on a ring: ``w N(h p, s^2) + (1 - w) N(-h p, s^2)``, p the sign of the sublattice."""

    kind: Literal["wells"] = "wells"
    height: float = 0.8
    width: float = 0.6
    weight: float = 0.7

    def build(self):
        return Wells(self)


class Wells(Teacher):
    """Every oracle of the two wells in closed form; at noise v, ``W = s^2 + v`` and ``r = tanh(h p.x / W + l)``."""

    translation_period = 2

    def __init__(self, spec: WellsSpec | None = None) -> None:
        spec = spec or WellsSpec()
        super().__init__(FieldInfo(dim=1, condition_channels=1, sigma_data=math.hypot(spec.height, spec.width)))
        self.spec = spec
        oracles = ("sample", "log_density", "score", "smoothed_score", "posterior_mean", "posterior_covariance")
        self.exactness = {name: Exactness() for name in oracles}
        self.bias = 0.5 * math.log(spec.weight / (1 - spec.weight))

    def check_size(self, size):
        if size < 2 or size % 2:
            raise OracleError("The sublattices do not fit.", expected="an even size", got=str(size))

    def context(self, batch, size):
        sign = (2 * self.domain(size).parity() - 1).to(self.anchor)
        return Context(self.domain(size), sign.expand(batch, 1, size))

    def sample(self, batch, size, *, generator):
        self.check_size(size)
        context = self.context(batch, size)
        draws = torch.rand(batch, generator=generator, dtype=self.anchor.dtype)
        well = torch.where(draws < self.spec.weight, 1.0, -1.0).to(self.anchor)
        white = normal((batch, 1, size), generator=generator, like=self.anchor)
        return Sample(expand(well, white) * self.pattern(context) + self.spec.width * white, context)

    def pattern(self, context):
        return self.spec.height * context.condition

    def noise(self, sigma, x):
        if not bool((sigma > 0).all()):
            raise OracleError("A noise level is not positive.", expected="positive", got=str(sigma.tolist()))
        return expand(sigma**2, x)

    def balance(self, x, v, context):
        """``E[well | x]`` of every field, in (-1, 1)."""
        overlap = (self.pattern(context) * x / (self.spec.width**2 + v)).flatten(1).sum(1)
        return expand(torch.tanh(overlap + self.bias), x)

    def log_density(self, sample):
        x, pattern, variance = sample.x, self.pattern(sample.context), self.spec.width**2
        wells = [
            math.log(weight) - (x - sign * pattern).square().flatten(1).sum(1) / (2 * variance)
            for weight, sign in ((self.spec.weight, 1), (1 - self.spec.weight, -1))
        ]
        return torch.logsumexp(torch.stack(wells), 0) - 0.5 * x.shape[-1] * math.log(2 * math.pi * variance)

    def score(self, sample):
        return self.scored(sample.x, 0.0, sample.context)

    def scored(self, x, v, context):
        return (self.pattern(context) * self.balance(x, v, context) - x) / (self.spec.width**2 + v)

    def smoothed_score(self, x, sigma, context):
        return self.scored(x, self.noise(sigma, x), context)

    def posterior_mean(self, x, sigma, context):
        v, variance = self.noise(sigma, x), self.spec.width**2
        return (variance * x + v * self.pattern(context) * self.balance(x, v, context)) / (variance + v)

    def posterior_covariance(self, x, sigma, context, site):
        v, variance, pattern = self.noise(sigma, x), self.spec.width**2, self.pattern(context)
        spread = (v / (variance + v)) ** 2 * (1 - self.balance(x, v, context) ** 2)
        row = spread * pattern[:, :, site[0], None] * pattern
        here = torch.zeros_like(row)
        here[:, :, site[0]] = 1
        return (row + here * variance * v / (variance + v))[:, None]


class DilutedSpec(TeacherSpec):
    """Independent Gaussians ``N(h, s^2)`` on the live sites of a ring, of which a share is dead."""

    kind: Literal["diluted"] = "diluted"
    height: float = 0.5
    width: float = 0.7
    live: float = 0.6

    def build(self):
        return Diluted(self)


class Diluted(Teacher):
    """Density and clean score in closed form, and zeros at dead sites."""

    def __init__(self, spec: DilutedSpec | None = None) -> None:
        spec = spec or DilutedSpec()
        super().__init__(FieldInfo(dim=1, sigma_data=math.hypot(spec.height, spec.width)))
        self.spec = spec
        self.exactness = {name: Exactness() for name in ("sample", "log_density", "score")}

    def sample(self, batch, size, *, generator):
        self.check_size(size)
        draws = torch.rand(batch, 1, size, generator=generator, dtype=self.anchor.dtype).to(self.anchor)
        x = self.spec.height + self.spec.width * normal((batch, 1, size), generator=generator, like=self.anchor)
        return self.diluted(x, Context(self.domain(size), mask=draws < self.spec.live))

    def diluted(self, x, context):
        return Sample(x * context.mask, context)

    def log_density(self, sample):
        squares = ((sample.x - self.spec.height) / self.spec.width).square() + math.log(2 * math.pi)
        return -(sample.context.mask * (0.5 * squares + math.log(self.spec.width))).flatten(1).sum(1)

    def score(self, sample):
        return sample.context.mask * (self.spec.height - sample.x) / self.spec.width**2


SPECS: dict[type[Teacher], Callable[[], Any]] = {
    Wells: WellsSpec,
    Diluted: DilutedSpec,
    GaussianTeacher: lambda: GaussianTeacherSpec(dim=1),
    FlowTeacher: lambda: FlowTeacherSpec(smoother_depth=1, coupling_gain=0.3, width=4),
    Phi4Teacher: lambda: Phi4TeacherSpec(dim=1),
}


class Crystal(GaussianTeacher):
    """Two channels that are coupled."""


SPECS[Crystal] = lambda: GaussianTeacherSpec(dim=2, channels=2, mass=0.7, springs={})


@lru_cache(maxsize=1)
def mean_mode_flow_spec() -> FlowTeacherSpec:
    return FlowTeacherSpec(
        smoother_depth=1, coupling_gain=0.3, width=4, mean_mode={"strength": 1.0, "reference_size": 4}
    )


class Stressed(FlowTeacher):
    """A flow with a mean mode."""


SPECS[Stressed] = mean_mode_flow_spec


def subject(cls: type[Teacher]) -> TeacherSubject:
    return TeacherSubject(lambda: cls(SPECS[next(base for base in cls.__mro__ if base in SPECS)]()), name=cls.__name__)


# --- broken ---------------------------------------------------------------------------------------------------------

MUTANTS: list[Mutant] = []


def killers(name: str, meant: str) -> tuple[str, ...]:
    """The check that is meant to find the mutant, then the others that do."""
    first = f"teacher/{meant}"
    return (first, *(killer for killer in KILLS[name] if killer != first))


def broken(base: type[Teacher], name: str, defect: str, meant: str) -> Callable[[type], type]:
    """Collect methods that replace those of a healthy teacher; ``super()`` in them is the healthy one."""

    def register(methods: type) -> type:
        cls = type(methods.__name__, (methods, base), {})
        MUTANTS.append(Mutant(name, defect, killers(name, meant), lambda: subject(cls), lambda: subject(base)))
        return cls

    return register


@broken(
    GaussianTeacher, "score-sign", "The clean score has the wrong sign.", "score-is-the-gradient-of-the-log-density"
)
class ScoreSign:
    def score(self, sample):
        return -super().score(sample)


@broken(FlowTeacher, "score-twice", "The clean score is twice too large.", "score-is-the-gradient-of-the-log-density")
class ScoreTwice:
    def score(self, sample):
        return 2 * super().score(sample)


@broken(Wells, "score-of-the-wrong-parity", "The score is rolled by one site.", "samples-follow-the-score")
class ScoreParity:
    def score(self, sample):
        return super().score(sample).roll(1, -1)


@broken(
    FlowTeacher,
    "log-determinant-left-out",
    "The density lacks its log-determinant.",
    "log-density-is-the-latent-normal",
)
class NoDeterminant:
    def log_density(self, sample):
        return super().log_density(sample) + self.pull_back(sample.x)[1]


@broken(
    Stressed,
    "mean-mode-determinant",
    "The mean mode has no log-determinant: a constant.",
    "latent-determinant-is-the-jacobians",
)
class MeanModeDeterminant:
    def __init__(self, spec):
        super().__init__(spec)
        self.layers[-1]._log_det = lambda x, amplitude: x.new_zeros(len(x))


@broken(
    Stressed,
    "mean-mode-inverse",
    "The inverse of the mean mode subtracts kappa, not kappa / (1 + kappa).",
    "latent-map-inverts",
)
class MeanModeInverse:
    def __init__(self, spec):
        super().__init__(spec)
        mode = self.layers[-1]

        def inverse(y):
            amplitude = mode.amplitude(y.shape[2:])
            return y - amplitude * y.mean((2, 3), keepdim=True), mode._log_det(y, amplitude)

        mode.inverse = inverse


@broken(
    Stressed,
    "constant-of-the-density",
    "The density's constant is n log(2 pi), without the half.",
    "log-density-is-the-latent-normal",
)
class Constant:
    def log_density(self, sample):
        return super().log_density(sample) - 0.5 * sample.x[0].numel() * math.log(2 * math.pi)


@broken(Wells, "weights-of-the-wells", "The density's two weights sum to 1.1.", "density-integrates-to-one")
class Unnormalised:
    def log_density(self, sample):
        return super().log_density(sample) + math.log(1.1)


@broken(Phi4Teacher, "sampler-temperature", "The sampler draws at another temperature.", "samples-follow-the-score")
class Hot:
    def sample(self, batch, size, *, generator):
        drawn = super().sample(batch, size, generator=generator)
        return drawn.with_x(1.1 * drawn.x)


@broken(
    GaussianTeacher,
    "sampler-nearly-right",
    "The sampler's fields are one per cent too large.",
    "samples-follow-the-score-closely",
)
class Warm:
    def sample(self, batch, size, *, generator):
        drawn = super().sample(batch, size, generator=generator)
        return drawn.with_x(1.01 * drawn.x)


@broken(Wells, "truncated-tail", "The sampler cuts the noise off at 1.5 deviations.", "samples-follow-the-score")
class Truncated:
    def sample(self, batch, size, *, generator):
        drawn = super().sample(batch, size, generator=generator)
        return drawn.with_x(drawn.x.clamp(-1.6, 1.6))


@broken(Wells, "seed-ignored", "The sampler seeds a generator of its own.", "samples-differ-with-the-generator")
class SeedIgnored:
    def sample(self, batch, size, *, generator):
        return super().sample(batch, size, generator=torch.Generator().manual_seed(0))


@broken(
    Wells, "global-generator", "The sampler draws from torch's global generator.", "samples-repeat-with-the-generator"
)
class GlobalGenerator:
    def sample(self, batch, size, *, generator):
        return super().sample(batch, size, generator=torch.default_generator)


@broken(Wells, "global-seed", "An oracle seeds torch's global generator.", "global-randomness-is-left-alone")
class GlobalSeed:
    def score(self, sample):
        torch.manual_seed(0)
        return super().score(sample)


@broken(Wells, "antithetic-rows", "Every second row of a batch is half its neighbour.", "rows-are-independent")
class Antithetic:
    def sample(self, batch, size, *, generator):
        drawn = super().sample(batch, size, generator=generator)
        x = drawn.x.clone()
        mirrored = x[: batch // 2 * 2 : 2] - self.spec.width * normal(
            x[: batch // 2 * 2 : 2].shape, generator=generator, like=x
        )
        x[1::2] = mirrored + self.spec.width * normal(mirrored.shape, generator=generator, like=x)
        return drawn.with_x(x)


@broken(Wells, "shared-offset", "All rows of a batch share the well.", "rows-are-independent")
class SharedWell:
    def sample(self, batch, size, *, generator):
        self.check_size(size)
        well = 1.0 if float(torch.rand((), generator=generator)) < self.spec.weight else -1.0
        context = self.context(batch, size)
        white = normal((batch, 1, size), generator=generator, like=self.anchor)
        return Sample(well * self.pattern(context) + self.spec.width * white, context)


@broken(
    Wells, "sigma-for-v", "The smoothed score takes sigma for its square.", "smoothed-score-solves-the-heat-equation"
)
class SigmaForVariance:
    def smoothed_score(self, x, sigma, context):
        self.noise(sigma, x)
        return self.scored(x, expand(sigma, x), context)


@broken(
    GaussianTeacher,
    "sigma-a-little-off",
    "The smoothed score is that of a noise 2 % stronger.",
    "smoothed-score-is-tweedies",
)
class SigmaOff:
    def smoothed_score(self, x, sigma, context):
        return super().smoothed_score(x, 1.02 * sigma, context)


@broken(Wells, "sigma-of-the-first-row", "The first row's noise level is used for all.", "rows-are-answered-alone")
class FirstSigma:
    def noise(self, sigma, x):
        return super().noise(sigma[:1].expand_as(sigma), x)


@broken(Wells, "least-sigma", "All oracles clamp the noise from below.", "smoothed-score-meets-the-clean-score")
class LeastSigma:
    def noise(self, sigma, x):
        return super().noise(torch.where(sigma > 0, sigma.clamp_min(0.02), sigma), x)


@broken(Wells, "largest-sigma", "The smoothed score clamps the noise from above.", "strong-noise-forgets-the-field")
class LargestSigma:
    def smoothed_score(self, x, sigma, context):
        return super().smoothed_score(x, sigma.clamp_max(30.0), context)


@broken(Wells, "tweedie-sign", "The smoothed score is (x - mean) / v.", "smoothed-score-is-tweedies")
class TweedieSign:
    def smoothed_score(self, x, sigma, context):
        return -super().smoothed_score(x, sigma, context)


@broken(
    GaussianTeacher,
    "posterior-covariance-without-v",
    "The posterior covariance lacks its factor v.",
    "response-is-the-posterior-covariance",
)
class NoVariance:
    def posterior_covariance(self, x, sigma, context, site):
        return super().posterior_covariance(x, sigma, context, site) / expand(sigma**2, x)[..., None]


@broken(
    Wells,
    "posterior-covariance-of-the-mean-field",
    "The posterior covariance does not depend on x.",
    "response-is-the-posterior-covariance",
)
class Unseeing:
    def posterior_covariance(self, x, sigma, context, site):
        return super().posterior_covariance(torch.zeros_like(x), sigma, context, site)


@broken(Wells, "posterior-covariance-of-the-next-site", "Sites are counted from one.", "posterior-covariance-is-one")
class NextSite:
    def posterior_covariance(self, x, sigma, context, site):
        return super().posterior_covariance(x, sigma, context, ((site[0] + 1) % x.shape[-1],))


@broken(
    Crystal, "posterior-covariance-transposed", "A lopsided factor between the channels.", "posterior-covariance-is-one"
)
class Lopsided:
    def posterior_covariance(self, x, sigma, context, site):
        right = super().posterior_covariance(x, sigma, context, site)
        return torch.stack([right[:, 0], 1.2 * right[:, 1]], dim=1)


@broken(
    Crystal,
    "covariance-of-noisy-fields",
    "The covariance between sites has a unit of noise.",
    "covariance-is-that-of-the-gaussian",
)
class NoisyCovariance:
    def covariance(self, size, sites):
        right = super().covariance(size, sites)
        return right + torch.eye(right[:, :, 0, 0].numel(), dtype=right.dtype).reshape(right.shape)


@broken(
    Wells,
    "condition-ignored",
    "The oracles of noisy fields know no sublattice.",
    "noisy-samples-follow-the-smoothed-score",
)
class ConditionIgnored:
    def smoothed_score(self, x, sigma, context):
        return super().smoothed_score(x, sigma, Context(context.domain, torch.ones_like(context.condition)))

    def posterior_mean(self, x, sigma, context):
        return super().posterior_mean(x, sigma, Context(context.domain, torch.ones_like(context.condition)))

    def posterior_covariance(self, x, sigma, context, site):
        return super().posterior_covariance(x, sigma, Context(context.domain, torch.ones_like(context.condition)), site)


@broken(
    Wells,
    "another-prior",
    "All oracles of noisy fields belong to wells of equal weight.",
    "noisy-oracles-agree-with-brute-force",
)
class EqualWells:
    def balance(self, x, v, context):
        noisy = isinstance(v, torch.Tensor)
        return (
            super().balance(x, v, context)
            if not noisy
            else expand(torch.tanh((self.pattern(context) * x / (self.spec.width**2 + v)).flatten(1).sum(1)), x)
        )


@broken(
    Phi4Teacher, "open-seam", "Zero padding on a ring: the bond at the seam is missing.", "law-is-translation-invariant"
)
class OpenSeam:
    def _action(self, x):
        return super()._action(x) - 0.5 * (x[..., 0] - x[..., -1]).square().flatten(1).sum(1)

    def _force(self, x):
        seam = x[..., 0] - x[..., -1]
        return super()._force(x) + torch.cat([seam[..., None], torch.zeros_like(x[..., 2:]), -seam[..., None]], -1)


@broken(
    Phi4Teacher,
    "one-neighbour-twice",
    "One neighbour is counted twice, the other not at all.",
    "score-jacobian-is-symmetric",
)
class OneSided:
    def score(self, sample):
        return super().score(sample) + sample.x.roll(1, 2) - sample.x.roll(-1, 2)


@broken(Phi4Teacher, "cubic-term", "A cubic term in a potential that is declared even.", "law-is-even")
class Cubic:
    def _action(self, x):
        return super()._action(x) + 0.05 * x.pow(3).flatten(1).sum(1)

    def _force(self, x):
        return super()._force(x) - 0.15 * x**2


@broken(
    Wells, "scale-from-the-first-size", "A width is kept from the first size that was asked.", "one-rule-at-every-size"
)
class FirstSize:
    first = None

    def score(self, sample):
        if self.first is None:
            self.first = sample.x.shape[-1]
        return super().score(sample) * (1 + 1e-3 * (self.first != sample.x.shape[-1]))


@broken(
    FlowTeacher,
    "single-precision-inside",
    "The density is summed in single precision.",
    "score-is-the-gradient-of-the-log-density",
)
class SinglePrecision:
    def log_density(self, sample):
        return super().log_density(sample).float().to(sample.x)


@broken(Wells, "cancellation", "A large constant is added and taken away again.", "single-precision-agrees-with-double")
class Cancellation:
    def score(self, sample):
        return (super().score(sample) + 1e5) - 1e5


@broken(Wells, "input-in-place", "The score normalises its input in place.", "inputs-are-left-alone")
class InPlace:
    def score(self, sample):
        right = super().score(sample)
        sample.x.detach().mul_(0.5)
        return right


@broken(
    Wells, "one-sided-kernel", "The smoothed score is blurred by a one-sided kernel.", "smoothed-jacobian-is-symmetric"
)
class OneSidedKernel:
    def smoothed_score(self, x, sigma, context):
        return super().smoothed_score(x, sigma, context) + 1e-3 * x.roll(1, -1)


@broken(GaussianTeacher, "batch-mean", "The mean over the batch is subtracted.", "rows-are-answered-alone")
class BatchMean:
    def posterior_mean(self, x, sigma, context):
        return super().posterior_mean(x - x.mean(0, keepdim=True), sigma, context)


@broken(Wells, "warm-start", "An iterative solver starts from its last answer.", "answers-repeat")
class WarmStart:
    calls = 0

    def posterior_mean(self, x, sigma, context):
        self.calls += 1
        return super().posterior_mean(x, sigma, context) * (1 + 1e-13 * self.calls)


@broken(Wells, "detached-score", "The score is detached.", "score-is-differentiable")
class Detached:
    def score(self, sample):
        return super().score(sample).detach()


@broken(
    Wells, "frozen-non-linearity", "The score's derivative leaves out its non-linear part.", "score-is-differentiable"
)
class Frozen:
    def balance(self, x, v, context):
        return super().balance(x, v, context).detach()


@broken(Wells, "scale-by-ten", "sigma_data is ten times too large.", "scale-is-that-of-the-samples")
class ScaleByTen:
    def __init__(self, spec=None):
        super().__init__(spec)
        self.field = self.field.model_copy(update={"sigma_data": 10 * self.field.sigma_data})


@broken(Wells, "accepts-no-noise", "A noise level of zero is answered.", "impossible-noise-is-refused")
class AcceptsZero:
    def noise(self, sigma, x):
        return expand(sigma**2, x)


@broken(Wells, "accepts-any-size", "Sizes are not checked.", "impossible-sizes-are-refused")
class AcceptsAnySize:
    def check_size(self, size):
        if size < 1:
            raise OracleError("No sites.", expected="some", got=str(size))


@broken(Wells, "misspelt-exactness", "The declaration names a method that does not exist.", "exactness-is-declared")
class Misspelt:
    def __init__(self, spec=None):
        super().__init__(spec)
        self.exactness["posterior_covarience"] = Exactness()


@broken(
    Wells,
    "context-in-single-precision",
    "The condition keeps torch's default dtype.",
    "samples-have-the-declared-shape",
)
class ConditionDtype:
    def context(self, batch, size):
        right = super().context(batch, size)
        other = torch.float32 if self.anchor.dtype == torch.float64 else torch.float64
        return Context(right.domain, right.condition.to(other))


@broken(
    Wells, "batch-axis-kept", "The log-density keeps an axis of length one.", "answers-have-the-shape-of-the-question"
)
class KeptAxis:
    def log_density(self, sample):
        return super().log_density(sample)[:, None]


@broken(
    Wells,
    "mean-of-wrong-noise",
    "The posterior mean is that of twice the variance.",
    "posterior-mean-predicts-the-clean-field",
)
class MeanOfWrongNoise:
    def posterior_mean(self, x, sigma, context):
        return super().posterior_mean(x, sigma * 2**0.5, context)


@broken(Diluted, "score-at-dead-sites", "The clean score does not know the mask.", "dead-sites-hold-zeros")
class ScoreAtDeadSites:
    def score(self, sample):
        return (self.spec.height - sample.x) / self.spec.width**2


@broken(Diluted, "field-at-dead-sites", "The sampler leaves the mean at dead sites.", "dead-sites-hold-zeros")
class FieldAtDeadSites:
    def diluted(self, x, context):
        return Sample(torch.where(context.mask, x, self.spec.height), context)


class SeedlessSpec(FlowTeacherSpec):
    kind: Literal["seedless"] = "seedless"

    def build(self):
        # The weights come from numpy's entropy: the specification has lost its seed.
        return FlowTeacher(self.model_copy(update={"seed": random.SystemRandom().randrange(2**31)}))


MUTANTS.append(
    Mutant(
        "specification-without-seed",
        "The specification does not decide the weights.",
        killers("specification-without-seed", "specification-rebuilds-the-teacher"),
        lambda: TeacherSubject(SeedlessSpec(width=4)),
        lambda: TeacherSubject(FlowTeacherSpec(width=4)),
    )
)
