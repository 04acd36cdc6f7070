r"""The receptive radius of a score, measured: without a teacher, a specification or trained weights.

For sites i of random fields the row of the Jacobian :math:`\partial s_i/\partial x_j` says from where the score reads:
the sites j with an entry that is not exactly zero. A path that is detached from the gradient shows in a difference: the
score at i where everything outside those sites is changed. Weights are moved before, since a layer that begins at zero
hides what is behind it, and several sites, fields, noise levels and sizes are looked at: strides make sites unlike,
and on an odd torus a pooling shows its seam.

Layers are followed by hooks: of the output of every layer the same row, so that the layer is named from which on the
score reads the whole field; and what a translation of the field does to it, so that the layer is named which pads, or
knows its place. What is measured holds for the weights and fields at hand; that nothing reads farther is a property of
the architecture, which no measurement proves.
"""

from __future__ import annotations

from sizetransfer.scores.receptive.measuring import measure_radius
from sizetransfer.scores.receptive.report import Fault, LayerReach, RadiusReport, Reach

__all__ = ["Fault", "LayerReach", "RadiusReport", "Reach", "measure_radius"]
