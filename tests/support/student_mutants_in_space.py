"""Broken students, continued: symmetry, locality, derivatives, precision, learning, memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from small_students import BOX, CYLINDER, GRAPH, SmallCNN, SmallGraphStudent, scale
from student_defects import defect
from torch import nn

from sizetransfer.contracts.domain import pad

# Symmetry and locality.


@defect("A torus is padded with zeros.", "translation-equivariance")
class ZeroPaddingOnTorus(SmallCNN):
    def padded(self, x):
        return pad(x, 1, periodic=False)


@defect("A cylinder is padded with zeros, as if its seam were a wall.", "translation-equivariance", field=CYLINDER)
class WallAcrossTheSeam(SmallCNN):
    def padded(self, x):
        return pad(x, 1, periodic=self.field.periodic)


@defect("A cylinder is padded as a torus.", "nothing-beyond-the-radius", field=CYLINDER)
class CylinderWrappedAround(SmallCNN):
    def padded(self, x):
        return pad(x, 1, periodic=any(self.field.closed_axes))


@defect(
    "The axes of a cylinder are taken in the wrong order.",
    "translation-equivariance",
    "nothing-beyond-the-radius",
    field=CYLINDER,
)
class OtherAxisClosed(SmallCNN):
    def padded(self, x):
        return pad(x, 1, periodic=self.field.closed_axes[::-1])


@defect(
    "A cylinder is padded once, with zeros at its ends, and nothing marks its walls.",
    "walls-are-seen",
    field=CYLINDER,
)
class EndsAreZeros(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.first = nn.Conv2d(field.channels, self.width, 3)

    def inputs(self, x, context):
        return self.pad(x if context.mask is None else x * context.mask, 2)

    def padded(self, x):
        return x


@defect("The sublattice of a site is seen, though no condition gives it.", "translation-equivariance")
class SeesSublattice(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.sublattice = nn.Parameter(torch.randn(self.width, 1, 1))

    def hidden(self, x, sigma, context):
        parity = context.domain.parity().to(x)
        return super().hidden(x, sigma, context) + self.sublattice * parity


@defect("The position of a site is seen.", "translation-equivariance", "same-patch-same-score")
class AbsolutePosition(SmallCNN):
    def activation(self, hidden):
        return super().activation(hidden + torch.linspace(-1, 1, hidden.shape[-1]).to(hidden))


@defect("Two axes are swapped.", "translation-equivariance", "output-like-input", "nothing-beyond-the-radius", "learns")
class TransposedAxes(SmallCNN):
    def activation(self, hidden):
        return super().activation(hidden.transpose(-1, -2))


@defect("Messages run along edges in one direction.", "relabelling-equivariance", field=GRAPH)
class OneWayMessages(SmallGraphStudent):
    def edges(self, graph):
        return graph.edges.T


@defect(
    "Every second site, by its number, sees no neighbours.",
    "relabelling-equivariance",
    "same-patch-same-score",
    "learns",
    field=GRAPH,
)
class NumberOfSite(SmallGraphStudent):
    def neighbours(self, hidden, graph):
        return super().neighbours(hidden, graph) * (torch.arange(graph.count) % 2).to(hidden)


@defect("An open box is padded as a torus.", "nothing-beyond-the-radius", field=BOX)
class BoxWrappedAround(SmallCNN):
    def padded(self, x):
        return pad(x, 1, periodic=True)


@defect("The radius is declared as one.", "nothing-beyond-the-radius", "same-patch-same-score")
class RadiusTooSmall(SmallCNN):
    def __init__(self, field):
        super().__init__(field, radius=1)


@defect("A token carries the mean over the lattice.", "nothing-beyond-the-radius", "same-patch-same-score")
class GlobalMeanToken(SmallCNN):
    def activation(self, hidden):
        return super().activation(hidden + hidden.mean((-1, -2), keepdim=True))


@defect(
    "Group normalisation takes its statistics over the lattice.", "nothing-beyond-the-radius", "same-patch-same-score"
)
class GroupNormalisation(SmallCNN):
    def activation(self, hidden):
        return super().activation(F.group_norm(hidden, 2))


@defect(
    "Instance normalisation takes its statistics over the lattice.",
    "nothing-beyond-the-radius",
    "same-patch-same-score",
)
class InstanceNormalisation(SmallCNN):
    def activation(self, hidden):
        return super().activation(F.instance_norm(hidden))


@defect("The second convolution is off by a site.", "nothing-beyond-the-radius", "same-patch-same-score")
class ShiftedByASite(SmallCNN):
    def output(self, hidden, context):
        return super().output(hidden.roll(1, -1), context)


@defect("Neighbours of neighbours are seen, at a declared radius of one.", "nothing-beyond-the-radius", field=GRAPH)
class TwoHops(SmallGraphStudent):
    def neighbours(self, hidden, graph):
        return super().neighbours(super().neighbours(hidden, graph), graph)


@defect("The radius is declared as three.", "radius-is-reached")
class RadiusTooLarge(SmallCNN):
    def __init__(self, field):
        super().__init__(field, radius=3)


@defect("Hidden channels are scaled by the size of the lattice.", "same-patch-same-score")
class ReadsSize(SmallCNN):
    def activation(self, hidden):
        return super().activation(hidden * (8 / hidden.shape[-1]))


@defect("An open box is padded once, with zeros, and nothing marks its walls.", "walls-are-seen", field=BOX)
class WallsAreZeros(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.first = nn.Conv2d(field.channels, self.width, 3)

    def inputs(self, x, context):
        return pad(x if context.mask is None else x * context.mask, 2, periodic=False)

    def padded(self, x):
        return x


# Derivatives and precision.


@defect("A layer is built and never called.", "gradients-reach-every-parameter")
class UnusedLayer(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.spare = nn.Linear(3, 3)


@defect("The embedding of the noise level is detached.", "gradients-reach-every-parameter")
class DetachedEmbedding(SmallCNN):
    def noise(self, sigma):
        return super().noise(sigma).detach()


@defect("In float32, the field goes through bfloat16.", "float32-agrees-with-float64")
class HalfPrecision(SmallCNN):
    def scaled_score(self, x, sigma, context):
        field = x.bfloat16().float() if x.dtype == torch.float32 else x
        return super().scaled_score(field, sigma, context)


@defect("The field goes through float32.", "double-precision-throughout", "second-derivatives")
class CastToFloat32(SmallCNN):
    def inputs(self, x, context):
        return super().inputs(x.float().to(x.dtype), context)


@defect("Half of the score is detached, so that steps are smaller.", "double-precision-throughout")
class HalfDetachedScore(SmallCNN):
    def scaled_score(self, x, sigma, context):
        score = super().scaled_score(x, sigma, context)
        return (score + score.detach()) / 2


@defect("The network sees a detached field.", "double-precision-throughout", "radius-is-reached")
class DetachedField(SmallCNN):
    def inputs(self, x, context):
        return super().inputs(x, context).detach()


@defect("A branch depends on the value of the noise level.", "functional-transformations")
class BranchOnValue(SmallCNN):
    def modulated(self, hidden, sigma):
        return super().modulated(hidden, sigma) if bool((sigma > 0).all()) else hidden


class _Square(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(hidden):
        return hidden * hidden

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (hidden,) = ctx.saved_tensors
        return 2 * hidden * gradient


@defect("An activation has a backward without a derivative.", "second-derivatives")
class DifferentiableOnce(SmallCNN):
    def activation(self, hidden):
        return 0.1 * _Square.apply(hidden) + super().activation(hidden)


# Learning.


@defect("The output of the network is scaled down to nothing.", "learns")
class TinyOutput(SmallCNN):
    def output(self, hidden, context):
        return 1e-3 * super().output(hidden, context)


@defect("The network sees fields that grow with the noise.", "high-noise-limit")
class UnscaledField(SmallCNN):
    def scaled_score(self, x, sigma, context):
        t = scale(self, x, sigma)
        return self.network(x, sigma, context) - x / t**2


@defect("The score is divided by the scale of the data, not of the noisy field.", "high-noise-limit")
class DividedByScaleOfData(SmallCNN):
    def scaled_score(self, x, sigma, context):
        scaled = x / scale(self, x, sigma)
        return (self.network(scaled, sigma, context) - scaled) / self.field.sigma_data


@defect("The neighbours of all sites are found in a matrix of all pairs.", "memory-grows-with-the-sites", field=GRAPH)
class MatrixOfPairs(SmallGraphStudent):
    def neighbours(self, hidden, graph):
        adjacency = torch.zeros(graph.count, graph.count).to(hidden)
        sources, targets = graph.directed_edges
        adjacency[sources, targets] = 1
        return hidden @ (adjacency / adjacency.sum(0))
