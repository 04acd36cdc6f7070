r"""Hard-valid mixed teacher: port states S, types M and a continuous field X in an open three-dimensional box.

.. math:: p(S, M, X) = P(S)\, P(M|S)\, p(X|S, M)

(paper §4.2 and appendix B.1), with exact samples and probabilities of each factor: paths in blocks
(:mod:`~sizetransfer.systems.hard_valid.ports`), a block model under a flow of permutations
(:mod:`~sizetransfer.systems.hard_valid.labels`) and a conditional local flow on the occupied sites
(:mod:`~sizetransfer.systems.hard_valid.field`).

Only X is continuous: ``log_density`` and ``score`` are those of X on its occupied sites *given* S and M (eq. (19)),
and there are separate log-probabilities for S and M. Empty sites carry no port, type 0 and a field of zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.gradients import ScoreOfDensity
from sizetransfer.contracts.oracle import Context, Exactness, Sample, SiteClasses, Teacher
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.contracts.specs import FieldInfo, TeacherSpec
from sizetransfer.systems.hard_valid.blocks import require_blocks
from sizetransfer.systems.hard_valid.encoding import condition_channels, encode
from sizetransfer.systems.hard_valid.field import (
    ConditionalCoupling,
    ConditionalLayer,
    FieldLaw,
    Given,
    LocalNetwork,
    OccupiedSmoother,
    latent_log_density,
)
from sizetransfer.systems.hard_valid.labels import LARGEST_COUNT, TypeLaw
from sizetransfer.systems.hard_valid.motifs import site_classes
from sizetransfer.systems.hard_valid.ports import PatternWeights, PortLaw
from sizetransfer.systems.hard_valid.validity import ValidPorts, ValidState

# Sites drawn at a time: the hidden channels of a conditioner then take some 64 megabytes.
_SITES_AT_A_TIME = 2**15


class HardValidTeacherSpec(TeacherSpec):
    """Ports, types and a conditional local flow in an open three-dimensional box.

    A unit of coupling depth updates both sublattices once; a layer of the smoother updates one, in turn.
    """

    kind: Literal["hard-valid"] = "hard-valid"
    block: int = Field(2, ge=2, le=4, description="sites along each axis of a block of the port library")
    weights: PatternWeights = Field(PatternWeights(), description="weights of empty, edge and path patterns")
    types: int = Field(4, ge=1, le=LARGEST_COUNT, description="types T of an occupied site, 1 to T")
    themes: int = Field(3, ge=1, description="themes of a block, which its types share")
    motif_strength: float = Field(1.0, ge=0, description="deviation of the type logits that the ports give")
    theme_strength: float = Field(1.0, ge=0, description="deviation of the type logits that the theme gives")
    type_depth: int = Field(2, ge=0, description="layers of the flow of types")
    channels: int = Field(1, ge=1, description="components of the field on an occupied site")
    pre_flow_depth: int = Field(0, ge=0, description="affine couplings before the smoother")
    flow_depth: int = Field(4, ge=0, description="affine couplings after the smoother")
    smoother_depth: int = Field(3, ge=0, description="layers of the additive smoother")
    cutoff: int = Field(3, ge=1, description="Euclidean cutoff of the smoother's kernel, in lattice steps")
    power: float = Field(1.0, description="the kernel decays as distance ** -power")
    gain: float = Field(1.0, description="size of one smoother update")
    nonlinear: bool = Field(True, description="tanh inside the smoother")
    correction: float = Field(0.0, ge=0, description="size of the smoother's local correction; zero: none")
    coupling_gain: float = Field(0.05, ge=0, description="scale of the conditioner's outputs: the nonlinear remainder")
    clip: float = Field(1.5, gt=0, description="bound on a coupling's log-scale")
    width: int = Field(64, ge=1, description="hidden channels of a conditioner")
    embedding: int = Field(16, ge=1, description="channels of the embeddings of ports and types")
    wall_cap: int = Field(4, ge=1, description="distance to the wall from which on students see no difference")

    has_site_classes: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "local": {"cutoff": 1, "gain": 0.5},
        "medium": {"cutoff": 3, "gain": 1.0},
        "wide": {"cutoff": 5, "gain": 1.5},
    }

    def build(self) -> HardValidTeacher:
        return HardValidTeacher(self)


@dataclass(frozen=True)
class Draw:
    """A sample with the logarithms of its probabilities, each of shape ``(B,)``.

    Attributes:
        sample: ports, types and field.
        ports: log P(S), float64.
        types: log P(M | S), float64.
        field: log p(X | S, M), with the field's dtype.
    """

    sample: Sample
    ports: Tensor
    types: Tensor
    field: Tensor


class HardValidTeacher(ScoreOfDensity, Teacher):
    """Ports, types and a conditional field, all with exact samples and probabilities (see the module's formula).

    Attributes:
        port_law: of S.
        type_law: of M given S.
        field_law: of X given S and M.
    """

    draws_fields_apart = True

    def __init__(self, spec: HardValidTeacherSpec) -> None:
        conditions = condition_channels(spec.types)
        super().__init__(FieldInfo(dim=3, channels=spec.channels, periodic=False, condition_channels=conditions))
        self.spec = spec
        random = np.random.Generator(np.random.PCG64(spec.seed))
        self.port_law = PortLaw(spec.block, spec.weights)
        self.type_law = TypeLaw(
            random,
            side=spec.block,
            count=spec.types,
            themes=spec.themes,
            motif_strength=spec.motif_strength,
            theme_strength=spec.theme_strength,
            depth=spec.type_depth,
        )
        self.field_law = _field_law(spec, random)
        self.exactness = {
            name: Exactness()
            for name in ("sample", "log_density", "score", "log_probability_ports", "log_probability_types")
        }
        self.field = self.field.model_copy(update={"sigma_data": self._estimate_scale()})

    def _estimate_scale(self) -> float:
        """Root mean square of the field on occupied sites of a box, to two decimals: the same on every machine."""
        size = 4 * self.spec.block
        sample = self.sample(16, size, generator=stream(self.spec.seed, "hard-valid scale"))
        live = sample.labels["ports"] != 0
        mean_square = sample.x.double().square().mean(1)[live].mean() if bool(live.any()) else torch.ones(())
        return max(round(float(mean_square.sqrt()), 2), 0.01)

    # --- sampling ---------------------------------------------------------------------------------------------------

    def check_size(self, size: int) -> None:
        require_blocks((size,) * 3, self.spec.block)

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        """Draw ports, types and field, independently for every row.

        Returns:
            The field, zero on empty sites; the context of :mod:`sizetransfer.systems.hard_valid.encoding`; the labels
            ``ports`` (bit d for direction d) and ``types``.

        Raises:
            OracleError: blocks do not tile the box.
        """
        return self.draw(batch, size, generator=generator).sample

    def draw(self, batch: int, size: int, *, generator: torch.Generator) -> Draw:
        """As :meth:`sample`, with the logarithms of all probabilities, at hardly more cost."""
        state = self.sample_discrete(batch, size, generator=generator)
        ports, types = self.port_law.log_probability(state.ports), self.type_law.log_probability(state)
        sample, field = self.sample_field(state, generator=generator)
        return Draw(sample, ports.to(self.anchor.device), types.to(self.anchor.device), field)

    def sample_discrete(self, batch: int, size: int, *, generator: torch.Generator) -> ValidState:
        """Draw ports and types; the numbers drawn do not depend on the teacher's dtype.

        Raises:
            OracleError: blocks do not tile the box.
        """
        self.check_size(size)
        return self.type_law.sample(self.port_law.sample(batch, (size,) * 3, generator=generator), generator=generator)

    def sample_field(self, state: ValidState, *, generator: torch.Generator) -> tuple[Sample, Tensor]:
        """Draw one field for each configuration of ports and types; also return log p(X | S, M), ``(B,)``."""
        codes = state.ports.codes
        z = normal((len(codes), self.field.channels, *codes.shape[1:]), generator=generator, like=self.anchor)
        rows = max(1, _SITES_AT_A_TIME // codes[0].numel())
        with torch.no_grad():
            parts = [
                self._push_forward(z[start : start + rows], _rows(state, slice(start, start + rows)))
                for start in range(0, len(codes), rows)
            ]
        x, log_density = (torch.cat(columns) for columns in zip(*parts, strict=True))
        labels = {"ports": codes.to(x.device), "types": state.types.to(x.device)}
        return Sample(x, self.context(state), labels), log_density

    def _push_forward(self, z: Tensor, state: ValidState) -> tuple[Tensor, Tensor]:
        given = self.field_law.given(state)
        x, log_det = self.field_law(z * given.live, given)
        return x, latent_log_density(z * given.live, given.live) - log_det

    def resample(self, sample: Sample, *, generator: torch.Generator) -> Sample:
        """Draw other fields for the ports and types of a sample.

        Raises:
            OracleError: a label is missing or a constraint is broken; with the site.
        """
        return self.sample_field(self.state(sample), generator=generator)[0]

    def site_classes(self, sample: Sample) -> SiteClasses:
        """Sites by motif and by type, and pairs of neighbours; see :mod:`sizetransfer.systems.hard_valid.motifs`.

        Raises:
            OracleError: a label is missing or a constraint is broken; with the site.
        """
        return site_classes(self.state(sample))

    def context(self, state: ValidState) -> Context:
        """What a student sees of ports and types; see :mod:`sizetransfer.systems.hard_valid.encoding`."""
        return encode(state, wall_cap=self.spec.wall_cap, like=self.anchor)

    # --- probabilities ----------------------------------------------------------------------------------------------

    def state(self, sample: Sample) -> ValidState:
        """Ports and types of a sample.

        Raises:
            OracleError: a label is missing or a constraint is broken; with the site.
        """
        missing = [name for name in ("ports", "types") if name not in sample.labels]
        if missing:
            raise OracleError(
                "The sample does not carry its discrete variables.",
                where="Sample.labels",
                expected="the labels 'ports' and 'types'",
                got=f"no {' and no '.join(map(repr, missing))}",
                fix="keep the labels of the teacher's sample: sample.with_x(x)",
            )
        ports = ValidPorts(sample.labels["ports"])
        require_blocks(ports.domain.shape, self.spec.block)
        return ValidState(ports, sample.labels["types"], self.spec.types)

    def log_probability_ports(self, sample: Sample) -> Float[Tensor, "batch"]:
        """Log-probability of the ports, log P(S), float64 of shape ``(B,)``.

        It is minus infinity where a block shows no pattern of the library.
        """
        return self.port_law.log_probability(self.state(sample).ports)

    def log_probability_types(self, sample: Sample) -> Float[Tensor, "batch"]:
        """Log-probability of the types given the ports, log P(M | S), float64 of shape ``(B,)``."""
        return self.type_law.log_probability(self.state(sample))

    def to_latent(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Map fields to latent fields, ports and types given; also return ``log |det dx/dz|`` on occupied sites.

        Raises:
            OracleError: ports, types or field break a constraint; with the site.
        """
        x, given = self._checked(sample)
        return self.field_law.inverse(x, given)

    def from_latent(self, z: Tensor, state: ValidState) -> tuple[Tensor, Tensor]:
        """Map latent fields to fields, the inverse of :meth:`to_latent`.

        Raises:
            OracleError: the latent field is not zero on an empty site; with the site.
        """
        state.require_zero(z)
        x, log_det = self.field_law(z, self.field_law.given(state))
        return x, log_det

    def log_density(self, sample: Sample) -> Float[Tensor, "batch"]:
        """Conditional log-density log p(X | S, M) of the field on its occupied sites, shape ``(B,)``.

        Raises:
            OracleError: ports, types or field break a constraint; with the site.
        """
        x, given = self._checked(sample)
        z, log_det = self.field_law.inverse(x, given)
        return latent_log_density(z, given.live) - log_det

    def _checked(self, sample: Sample) -> tuple[Tensor, Given]:
        """The field, and ports and types as the layers read them."""
        state = self.state(sample)
        expected = (len(state.types), self.field.channels, *state.types.shape[1:])
        if tuple(sample.x.shape) != expected:
            raise OracleError(
                "The field does not fit its ports.",
                where="Sample.x",
                expected=f"shape {expected}",
                got=f"shape {tuple(sample.x.shape)}",
                fix="take field and labels of one sample",
            )
        given = self.field_law.given(state)
        state.require_zero(sample.x.to(state.types.device))
        # Nothing that comes back through an empty site is a derivative by a coordinate of the field.
        return sample.x * given.live, given


def _rows(state: ValidState, index: slice) -> ValidState:
    return ValidState(ValidPorts(state.ports.codes[index]), state.types[index], state.count)


def _field_law(spec: HardValidTeacherSpec, random: np.random.Generator) -> FieldLaw:
    def network(outputs: int, gain: float) -> LocalNetwork:
        return LocalNetwork(
            random,
            channels=spec.channels,
            outputs=outputs,
            width=spec.width,
            embedding=spec.embedding,
            gain=gain,
        )

    def couplings(depth: int) -> list[ConditionalLayer]:
        return [
            ConditionalCoupling(network(2 * spec.channels, spec.coupling_gain), parity=parity, clip=spec.clip)
            for _ in range(depth)
            for parity in (0, 1)
        ]

    def smoother(layer: int) -> ConditionalLayer:
        correction = network(spec.channels, spec.correction) if spec.correction else None
        return OccupiedSmoother(parity=layer % 2, gain=spec.gain, nonlinear=spec.nonlinear, correction=correction)

    layers = [
        *couplings(spec.pre_flow_depth),
        *(smoother(layer) for layer in range(spec.smoother_depth)),
        *couplings(spec.flow_depth),
    ]
    return FieldLaw(layers, random, embedding=spec.embedding, count=spec.types, cutoff=spec.cutoff, power=spec.power)
