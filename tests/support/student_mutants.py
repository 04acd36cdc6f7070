"""Broken students: a healthy small one with one plausible defect each, and the checks of level core that catch it."""

from __future__ import annotations

import student_mutants_in_space  # noqa: F401  (it registers its mutants)
import torch
import torch.nn.functional as F
from mutant import Mutant
from pydantic import Field
from small_students import BOX, CONDITIONED, TORUS, SmallCNN, SmallSpec, scale
from student_defects import FOUND, defect

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer_verification.conformance import StudentSubject

# The form of the answer, and what is accepted.


@defect("A table of units stays in float64 and turns every score into float64.", "output-like-input")
class TableOfFloat64(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.units = torch.ones(field.channels, 1, 1, dtype=torch.float64)

    def scaled_score(self, x, sigma, context):
        return super().scaled_score(x, sigma, context) * self.units


@defect(
    "A batch of one is squeezed away.",
    "output-like-input",
    "sizes-from-twice-the-radius",
    "functional-transformations",
)
class SqueezedBatch(SmallCNN):
    def scaled_score(self, x, sigma, context):
        return super().scaled_score(x, sigma, context).squeeze(0)


@defect("Lattices of odd size are refused.", "sizes-from-twice-the-radius")
class RefusesOddSizes(SmallCNN):
    def inputs(self, x, context):
        if any(length % 2 for length in x.shape[2:]):
            raise OracleError("The size is odd.")
        return super().inputs(x, context)


@defect("A convolution of stride two, undone by repetition.", "translation-equivariance", "nothing-beyond-the-radius")
class StrideTwo(SmallCNN):
    def hidden(self, x, sigma, context):
        coarse = super().hidden(x, sigma, context)[..., ::2, ::2]
        return coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., : x.shape[-2], : x.shape[-1]]


@defect("The field is made anew, without its standard deviation.", "declarations")
class ForgetsScaleOfField(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.field = FieldInfo(dim=field.dim, channels=field.channels, periodic=field.periodic)


@defect("The radius is half of four: a float.", "declarations")
class RadiusIsFloat(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.radius = 4 / 2


@defect("The field is scaled in place.", "inputs-unchanged")
class ScalesFieldInPlace(SmallCNN):
    def scaled_score(self, x, sigma, context):
        t = scale(self, x, sigma)
        x.div_(t)
        return (self.network(x, sigma, context) - x) / t


@defect("The logarithm of the noise level is taken in place.", "inputs-unchanged")
class LogarithmInPlace(SmallCNN):
    def scaled_score(self, x, sigma, context):
        t, scaled = scale(self, x, sigma), x / scale(self, x, sigma)
        return (self.network(scaled, sigma, context) - scaled) / t

    def noise(self, sigma):
        return super().noise(sigma.log_().exp())


@defect("The condition is centred in place.", "inputs-unchanged", field=CONDITIONED)
class CentresConditionInPlace(SmallCNN):
    def inputs(self, x, context):
        if context.condition is not None:
            context.condition.mul_(2).sub_(1)
        return super().inputs(x, context)


@defect("The field is flattened by view.", "any-memory-layout")
class FlattensByView(SmallCNN):
    def inputs(self, x, context):
        return super().inputs(x.view(len(x), -1).reshape(x.shape), context)

    def scaled_score(self, x, sigma, context):
        x.view(len(x), -1)
        return super().scaled_score(x, sigma, context)


@defect("A gate in the noise level is written with an exponential that overflows.", "finite-at-every-noise")
class OverflowingGate(SmallCNN):
    def modulated(self, hidden, sigma):
        raised = (0.2 / sigma).exp().reshape(-1, *(1,) * (hidden.ndim - 2), 1)
        return super().modulated(hidden, sigma) * (raised / (1 + raised))


@defect("Every noise level is taken for that of the data.", "depends-on-sigma", field=BOX)
class SigmaIgnored(SmallCNN):
    def scaled_score(self, x, sigma, context):
        return super().scaled_score(x, torch.full_like(sigma, self.field.sigma_data), context)


# Repetition.


@defect(
    "Dropout stays on in eval mode.",
    "deterministic-evaluation",
    "any-memory-layout",
    "no-memory-of-earlier-calls",
    "weights-round-trip",
    "dead-sites-are-left-out",
    "rows-alone",
    "rows-do-not-mix",
    "translation-equivariance",
    "same-patch-same-score",
    "float32-agrees-with-float64",
    "double-precision-throughout",
    "functional-transformations",
    "second-derivatives",
)
class DropoutInEval(SmallCNN):
    def activation(self, hidden):
        return F.dropout(super().activation(hidden), 0.1, training=True)


@defect(
    "Noise from the global generator is added to the field.",
    "deterministic-evaluation",
    "any-memory-layout",
    "no-memory-of-earlier-calls",
    "weights-round-trip",
    "dead-sites-are-left-out",
    "rows-alone",
    "rows-do-not-mix",
    "translation-equivariance",
    "same-patch-same-score",
    "float32-agrees-with-float64",
    "double-precision-throughout",
    "functional-transformations",
    "second-derivatives",
)
class GlobalNoise(SmallCNN):
    def inputs(self, x, context):
        return super().inputs(x + 1e-3 * torch.randn_like(x), context)


@defect("The global generator is seeded in every call.", "deterministic-evaluation")
class SeedsGlobalGenerator(SmallCNN):
    def activation(self, hidden):
        torch.manual_seed(0)
        return super().activation(hidden)


@defect("The scale of the inputs is that of the first batch that comes.", "no-memory-of-earlier-calls")
class ScaleOfFirstBatch(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("ready", torch.zeros(()))

    def inputs(self, x, context):
        if not bool(self.ready):
            self.unit.copy_(x.detach().std())
            self.ready.fill_(1)
        return super().inputs(x / self.unit, context)


@defect(
    "Scales of the noise are cached by the shape of the field.",
    "no-memory-of-earlier-calls",
    "weights-round-trip",
    "rows-alone",
    "same-patch-same-score",
    "functional-transformations",
    "high-noise-limit",
)
class CachedByShape(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.cache = {}

    def precondition(self, network, x, sigma):
        t = self.cache.setdefault(x.shape, scale(self, x, sigma))
        return (network(x / t) - x / t) / t


class UnsavedWidth(SmallSpec):
    """A width that is left out of the dump."""

    width: int = Field(6, ge=1, exclude=True)


FOUND.append(
    Mutant(
        name="unsaved-width",
        defect="A field of the specification is left out of its dump.",
        killers=("student/specification-round-trip",),
        subject=lambda: StudentSubject(UnsavedWidth(width=4), fields=(TORUS,), name="unsaved-width"),
        healthy=lambda: StudentSubject(SmallSpec(width=4), fields=(TORUS,), name="SmallSpec"),
    )
)


@defect("Random features are no part of the saved state.", "weights-round-trip")
class UnsavedFeatures(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.register_buffer("features", torch.randn(self.width, 1, 1), persistent=False)

    def activation(self, hidden):
        return super().activation(hidden * self.features)


# Condition and mask.


@defect("The condition is replaced by zeros.", "condition-reaches-the-score", field=CONDITIONED)
class ConditionIgnored(SmallCNN):
    def inputs(self, x, context):
        inputs = super().inputs(x, context)
        return torch.cat([inputs[:, : self.field.channels], torch.zeros_like(inputs[:, self.field.channels :])], dim=1)


@defect("The first channel of the condition stands for both.", "condition-reaches-the-score", field=CONDITIONED)
class OneConditionTwice(SmallCNN):
    def inputs(self, x, context):
        inputs = super().inputs(x, context)
        return torch.cat([inputs[:, :2], inputs[:, 1:2]], dim=1)


@defect("Only the score is masked, not the field.", "dead-sites-are-left-out")
class DeadSitesSeen(SmallCNN):
    def inputs(self, x, context):
        return x


# Rows.


@defect("The noise level of the first row serves all.", "rows-alone", field=BOX)
class FirstSigmaForAll(SmallCNN):
    def scaled_score(self, x, sigma, context):
        return super().scaled_score(x, sigma[:1].expand_as(sigma), context)


@defect(
    "Batch normalisation takes the batch's statistics in eval mode too.",
    "rows-alone",
    "rows-do-not-mix",
    "nothing-beyond-the-radius",
    "same-patch-same-score",
    "functional-transformations",
)
class BatchStatistics(SmallCNN):
    def activation(self, hidden):
        return F.batch_norm(super().activation(hidden), None, None, training=True)


@defect(
    "The mean over the batch is subtracted.",
    "rows-alone",
    "rows-do-not-mix",
    "radius-is-reached",
    "functional-transformations",
)
class BatchMean(SmallCNN):
    def activation(self, hidden):
        return super().activation(hidden - hidden.mean(0, keepdim=True))


@defect("A batch with a huge number in it is scaled down as a whole.", "rows-do-not-mix")
class BatchWideClip(SmallCNN):
    def inputs(self, x, context):
        return super().inputs(x / (x.abs().amax() / 50).clamp(min=1), context)


MUTANTS: tuple[Mutant, ...] = tuple(FOUND)
