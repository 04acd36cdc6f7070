r"""Finite-depth local flows (FDLF): teachers with exact samples, densities and clean scores at every size.

.. math:: X = M_L \circ F_{\rm flow} \circ S \circ F_{\rm pre}(z), \qquad z \sim N(0, I)

(paper eq. (14), appendix B.2): affine couplings, an additive smoother with a power-law kernel, affine couplings
again and, for the stress family, a mean mode whose strength grows with the lattice. The log-density is

.. math:: \log p(x) = -\tfrac12\|z(x)\|^2 - \tfrac N2\log 2\pi - \sum_\ell \log|\det J_\ell|

(eq. (15)), all of it exact to rounding; the clean score is its gradient. Checkerboard couplings make the law
invariant under *even* translations only, so samples carry their sublattice as a condition: without it a
translation-invariant student has an error floor that no radius removes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.gradients import ScoreOfDensity
from sizetransfer.contracts.oracle import Context, Exactness, Sample, Teacher
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.contracts.specs import FieldInfo, Spec, TeacherSpec
from sizetransfer.numerics.layers import AdditiveSmoother, AffineCoupling, Layer, MeanMode


class MeanModeSpec(Spec):
    r"""Strength :math:`\kappa_L = \kappa (L/L_0)^\gamma` of the mean mode."""

    strength: float = Field(4.0, gt=-1, description="kappa, at the reference size")
    exponent: float = Field(1.0, description="gamma; at least one for a relative error that does not vanish with L")
    reference_size: int = Field(16, ge=1, description="L_0, in sites: usually the training size")


class FlowTeacherSpec(TeacherSpec):
    """Finite-depth local flow on a two-dimensional torus.

    A unit of coupling depth updates both sublattices once; a layer of the smoother updates one, in turn.
    """

    kind: Literal["flow"] = "flow"
    pre_flow_depth: int = Field(1, ge=0, description="affine couplings before the smoother")
    flow_depth: int = Field(1, ge=0, description="affine couplings after the smoother")
    smoother_depth: int = Field(0, ge=0, description="layers of the additive smoother")
    cutoff: int = Field(1, ge=1, description="Euclidean cutoff of the smoother's kernel, in lattice steps")
    power: float = Field(1.0, description="the kernel decays as distance ** -power")
    gain: float = Field(1.0, description="size of one smoother update")
    nonlinear: bool = Field(True, description="tanh inside the smoother")
    coupling_gain: float = Field(0.1, ge=0, description="scale of the conditioner's outputs: the nonlinear remainder")
    clip: float = Field(1.0, gt=0, description="bound on a coupling's log-scale")
    width: int = Field(32, ge=1, description="hidden channels of a conditioner")
    mean_mode: MeanModeSpec | None = Field(None, description="exact global mean mode, for the stress family")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "short-range-simple": {"pre_flow_depth": 1, "flow_depth": 1, "smoother_depth": 0, "coupling_gain": 0.26},
        "short-range-structured": {
            "pre_flow_depth": 1,
            "flow_depth": 1,
            "smoother_depth": 1,
            "cutoff": 1,
            "gain": 0.8,
            "coupling_gain": 0.26,
        },
        "medium-range": {
            "pre_flow_depth": 2,
            "flow_depth": 2,
            "smoother_depth": 3,
            "cutoff": 5,
            "gain": 1.15,
            "coupling_gain": 0.035,
        },
        "long-range-stress": {
            "pre_flow_depth": 2,
            "flow_depth": 2,
            "smoother_depth": 6,
            "cutoff": 8,
            "gain": 0.9,
            "coupling_gain": 0.035,
            "mean_mode": {"strength": 4.0, "exponent": 1.0, "reference_size": 16},
        },
    }
    aliases: ClassVar[Mapping[str, str]] = {
        "simple_local": "short-range-simple",
        "complex_local": "short-range-structured",
        "medium_range": "medium-range",
        "complex_long": "long-range-stress",
    }

    def build(self) -> FlowTeacher:
        return FlowTeacher(self)


class FlowTeacher(ScoreOfDensity, Teacher):
    """Finite-depth local flow with exact sampler, log-density and clean score (see the module's formulas)."""

    dim: ClassVar[int] = 2
    translation_period = 2
    draws_fields_apart = True

    def __init__(self, spec: FlowTeacherSpec) -> None:
        super().__init__(FieldInfo(dim=self.dim, channels=1, periodic=True, condition_channels=1))
        self.spec = spec
        self.layers = nn.ModuleList(self._build_layers(spec))
        self.exactness = {"sample": Exactness(), "log_density": Exactness(), "score": Exactness()}
        self.field = self.field.model_copy(update={"sigma_data": self._estimate_scale()})

    def _build_layers(self, spec: FlowTeacherSpec) -> list[Layer]:
        random = np.random.Generator(np.random.PCG64(spec.seed))
        pre_flow = self._couplings(random, spec, spec.pre_flow_depth)
        smoother: list[Layer] = [
            AdditiveSmoother(
                parity=layer % 2,
                cutoff=spec.cutoff,
                power=spec.power,
                gain=spec.gain,
                nonlinear=spec.nonlinear,
                dim=self.dim,
                periodic=True,
            )
            for layer in range(spec.smoother_depth)
        ]
        flow = self._couplings(random, spec, spec.flow_depth)
        mean_mode: list[Layer] = [] if spec.mean_mode is None else [MeanMode(**spec.mean_mode.model_dump())]
        return [*pre_flow, *smoother, *flow, *mean_mode]

    def _couplings(self, random: np.random.Generator, spec: FlowTeacherSpec, depth: int) -> list[Layer]:
        return [
            AffineCoupling(
                random,
                parity=parity,
                clip=spec.clip,
                dim=self.dim,
                channels=self.field.channels,
                width=spec.width,
                gain=spec.coupling_gain,
                periodic=True,
            )
            for _ in range(depth)
            for parity in (0, 1)
        ]

    def _estimate_scale(self) -> float:
        """Standard deviation of the field on a 16 x 16 torus, to two decimals: the same on every machine."""
        size = 16 if self.spec.mean_mode is None else self.spec.mean_mode.reference_size
        size += size % 2
        with torch.no_grad():
            x = self.sample(64, size, generator=stream(self.spec.seed, "scale")).x
        return max(round(float(x.double().std()), 2), 0.01)

    def check_size(self, size: int) -> None:
        if size < 2 or size % 2:
            raise OracleError(
                "The checkerboard does not fit on the torus.",
                where=f"{type(self).__name__}, size",
                expected="an even number of sites along each axis, at least 2",
                got=str(size),
                fix=f"use {max(2, size + size % 2)}",
            )

    def context(self, batch: int, size: int) -> Context:
        """The context of ``batch`` fields: the sublattice, -1 or 1, as one condition channel."""
        domain = Lattice.cubic(size, self.dim, periodic=True)
        sign = (2 * domain.parity() - 1).to(self.anchor)
        return Context(domain, condition=sign.expand(batch, 1, *domain.shape))

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        self.check_size(size)
        shape = (batch, self.field.channels, *(size,) * self.dim)
        with torch.no_grad():
            x, _ = self.push_forward(normal(shape, generator=generator, like=self.anchor))
        return Sample(x, self.context(batch, size))

    def push_forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map latent fields to fields; return them and ``log |det dx/dz|``, shape ``(B,)``."""
        total = z.new_zeros(z.shape[0])
        for layer in self.layers:
            z, log_det = layer(z)
            total = total + log_det
        return z, total

    def pull_back(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map fields to latent fields; return them and ``log |det dx/dz|``, shape ``(B,)``."""
        total = x.new_zeros(x.shape[0])
        for layer in reversed(cast(list[Layer], self.layers)):
            x, log_det = layer.inverse(x)
            total = total + log_det
        return x, total

    def log_density(self, sample: Sample) -> Float[Tensor, "batch"]:
        """Log-density of the clean field (paper eq. (15)), shape ``(B,)``."""
        self.check_size(sample.x.shape[-1])
        z, log_det = self.pull_back(sample.x)
        latent = -0.5 * z.square().flatten(1).sum(1) - 0.5 * z[0].numel() * math.log(2 * math.pi)
        return latent - log_det
