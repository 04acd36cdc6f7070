r"""E(3)-equivariant message passing on e3nn: scores that turn and reflect with the positions.

Hidden features are irreducible representations: scalars 0e, vectors 1o, and others that the specification names. The
displacement of an edge enters by spherical harmonics Y of its direction and by weights w, a perceptron of its length
(Thomas et al. 2018, arXiv:1802.08219; Geiger and Smidt 2022, arXiv:2207.09453):

.. math:: m_i = \frac{1}{\sqrt{3^d - 1}} \sum_{j \to i} h_j \otimes_{w(|r_{ij}|)} Y(\hat r_{ij}), \qquad
   h_i \leftarrow h_i + U\,\mathrm{gate}\bigl((V h_i + W m_i) \odot (1 + a(\sigma)) + b(\sigma)\bigr)

The scale a is one number for each representation, the shift b acts on scalars. So for every rotation, reflection or
inversion R the score obeys :math:`s(R x, R r) = R\,s(x, r)` for a vector field (``components: vector``) and
:math:`s(x, R r) = s(x, r)` for scalar channels. Fields in one or two dimensions are taken as lying in three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer_graph.edges import Edges
from sizetransfer_graph.libraries import FullyConnectedNet, Gate, o3, soft_one_hot_linspace
from sizetransfer_graph.network import GraphStudent, NeighbourSum

if TYPE_CHECKING:
    from sizetransfer_graph.specs import EquivariantSpec

SCALAR, VECTOR = o3.Irrep("0e"), o3.Irrep("1o")
SPACE = 3
RADIAL_WIDTH = 32
# e3nn's name for a buffer with the Wigner symbols of three degrees.
_CONSTANT = "_w3j_"


def hidden_irreps(spec: EquivariantSpec, field: FieldInfo) -> o3.Irreps:
    """The hidden features of a specification, checked against the field.

    Raises:
        SpecError: they cannot be read, or lack what the field needs: scalars, and vectors for a vector field.
    """
    text = spec.hidden()
    try:
        irreps = o3.Irreps(text).regroup()
    except (ValueError, KeyError, AssertionError):
        raise _wrong_irreps("The hidden features cannot be read.", text, "irreps in e3nn's notation") from None
    missing = [irrep for irrep in _needed(field) if irreps.count(irrep) == 0]
    if missing:
        raise _wrong_irreps(
            f"The hidden features do not match the field, whose channels are {'a ' if _is_vector(field) else ''}"
            f"{field.components}.",
            str(irreps),
            f"irreps with {' and '.join(f'some {irrep}' for irrep in _needed(field))}",
        )
    return irreps


def _wrong_irreps(what: str, got: str, expected: str) -> SpecError:
    return SpecError(
        what,
        where="equivariant, irreps",
        expected=expected,
        got=repr(got),
        fix="write for example irreps: 16x0e + 8x1o, or leave it out and set the width",
    )


def _is_vector(field: FieldInfo) -> bool:
    return field.components == "vector"


def _needed(field: FieldInfo) -> list[o3.Irrep]:
    return [SCALAR, VECTOR] if _is_vector(field) else [SCALAR]


class _TensorConvolution(NeighbourSum):
    """Features of the neighbours times the harmonics of the edges, path by path, with weights of the length."""

    def __init__(self, spec: EquivariantSpec, field: FieldInfo, hidden: o3.Irreps, target: o3.Irreps) -> None:
        super().__init__(field)
        self.product = _paths(hidden, _harmonics(spec), target)
        self.weights = FullyConnectedNet([spec.radial, RADIAL_WIDTH, self.product.weight_numel], F.silu)
        self.mixing = o3.Linear(self.product.irreps_out.simplify(), target)

    def forward(self, hidden: Tensor, edges: Edges, radial: Tensor, harmonics: Tensor) -> Tensor:
        summed = self.summed(hidden, edges, harmonics=harmonics, weights=self.weights(radial))
        result: Tensor = self.mixing(summed)
        return result

    def message(self, x_j: Tensor, harmonics: Tensor, weights: Tensor) -> Tensor:
        message: Tensor = self.product(x_j, harmonics, weights)
        return message


def _harmonics(spec: EquivariantSpec) -> o3.Irreps:
    return o3.Irreps.spherical_harmonics(spec.harmonics)


def _paths(hidden: o3.Irreps, harmonics: o3.Irreps, target: o3.Irreps) -> o3.TensorProduct:
    """All couplings of hidden features and harmonics to what the target holds, channel by channel."""
    outputs: list[tuple[int, o3.Irrep]] = []
    instructions: list[tuple[int, int, int, str, bool]] = []
    for first, (multiplicity, irrep) in enumerate(hidden):
        for second, (_, harmonic) in enumerate(harmonics):
            for out in irrep * harmonic:
                if out in target:
                    instructions.append((first, second, len(outputs), "uvu", True))
                    outputs.append((multiplicity, out))
    # Sorted, so that equal representations stand together and one linear map mixes them.
    irreps, places, _ = o3.Irreps(outputs).sort()
    sorted_instructions = [(first, second, places[out], *rest) for first, second, out, *rest in instructions]
    return o3.TensorProduct(
        hidden, harmonics, irreps, sorted_instructions, shared_weights=False, internal_weights=False
    )


class _NoiseModulation(nn.Module):
    """A scale for every representation and a shift for every scalar, from the noise level."""

    index: Tensor

    def __init__(self, irreps: o3.Irreps, noise_width: int) -> None:
        super().__init__()
        self.count = irreps.num_irreps
        numbers = [number for number, (_, irrep) in enumerate(_single(irreps)) for _ in range(irrep.dim)]
        self.register_buffer("index", torch.tensor(numbers), persistent=False)
        scalars = [float(irrep == SCALAR) for _, irrep in _single(irreps) for _ in range(irrep.dim)]
        self.register_buffer("scalars", torch.tensor(scalars), persistent=False)
        self.linear = nn.Linear(noise_width, 2 * self.count)

    def forward(self, hidden: Tensor, noise: Tensor) -> Tensor:
        scale, shift = self.linear(noise)[:, None].chunk(2, dim=-1)
        shifts: Tensor = shift[..., self.index] * self.scalars
        scaled: Tensor = hidden * (1 + scale[..., self.index])
        return scaled + shifts


def _single(irreps: o3.Irreps) -> list[tuple[int, o3.Irrep]]:
    return [(1, irrep) for multiplicity, irrep in irreps for _ in range(multiplicity)]


class _Layer(nn.Module):
    """Messages around a shortcut, modulated by the noise level and gated by scalars."""

    def __init__(self, spec: EquivariantSpec, field: FieldInfo, hidden: o3.Irreps) -> None:
        super().__init__()
        self.gate = _gate(hidden)
        target = self.gate.irreps_in
        self.kept = o3.Linear(hidden, target, biases=True)
        self.convolution = _TensorConvolution(spec, field, hidden, target)
        self.modulation = _NoiseModulation(target, spec.width)
        self.update = o3.Linear(self.gate.irreps_out, hidden)

    def forward(self, hidden: Tensor, noise: Tensor, edges: Edges, radial: Tensor, harmonics: Tensor) -> Tensor:
        heard = self.kept(hidden) + self.convolution(hidden, edges, radial, harmonics)
        update: Tensor = self.update(self.gate(self.modulation(heard, noise)))
        return hidden + update


def _gate(hidden: o3.Irreps) -> Gate:
    scalars = o3.Irreps([entry for entry in hidden if entry.ir.l == 0])
    gated = o3.Irreps([entry for entry in hidden if entry.ir.l > 0])
    gates = o3.Irreps([(gated.num_irreps, SCALAR)] if gated.num_irreps else [])
    # The activation of a scalar that changes sign under inversion must be odd.
    activations: list[Callable[[Tensor], Tensor]] = [F.silu if entry.ir == SCALAR else torch.tanh for entry in scalars]
    return Gate(scalars, activations, gates, [torch.sigmoid] * len(gates), gated)


class EquivariantStudent(GraphStudent):
    """E(3)-equivariant message passing of radius depth (see the module's formula)."""

    def __init__(self, spec: EquivariantSpec, field: FieldInfo, hidden: o3.Irreps) -> None:
        super().__init__(spec, field, noise_width=spec.width, positions=True)
        self.spec: EquivariantSpec = spec
        channels = o3.Irreps([(1, VECTOR)]) if _is_vector(field) else o3.Irreps([(field.channels, SCALAR)])
        self.harmonics = _harmonics(spec)
        # Beside the conditions a constant one, through which scalars that no input reaches get a bias.
        self.input = o3.Linear(channels + o3.Irreps([(self.conditions + 1, SCALAR)]), hidden)
        self.layers = nn.ModuleList(_Layer(spec, field, hidden) for _ in range(spec.depth))
        self.output = o3.Linear(hidden, channels)
        nn.init.zeros_(self.output.weight)
        self.register_load_state_dict_post_hook(_restore_constants)  # type: ignore[no-untyped-call]
        _restore_constants(self)

    def network(self, sites: Tensor, noise: Tensor, edges: Edges) -> Tensor:
        vectors = F.pad(edges.vectors, (0, SPACE - self.field.dim))
        radial = soft_one_hot_linspace(
            vectors.norm(dim=1), 0.0, self.spec.reach, self.spec.radial, basis="gaussian", cutoff=False
        )
        harmonics = o3.spherical_harmonics(self.harmonics, vectors, normalize=True, normalization="component")
        hidden = self.input(self._embedded(sites))
        for layer in self.layers:
            hidden = layer(hidden, noise, edges, radial, harmonics)
        result: Tensor = self.output(hidden)
        return result[..., : self.field.channels]

    def _embedded(self, sites: Tensor) -> Tensor:
        """The inputs in three dimensions, where a vector of one or two components gets zeros, and a constant one."""
        field, rest = sites[..., : self.field.channels], sites[..., self.field.channels :]
        if _is_vector(self.field):
            field = F.pad(field, (0, SPACE - self.field.dim))
        return torch.cat([field, rest, torch.ones_like(sites[..., :1])], dim=-1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        _restore_constants(self)
        return self


def _restore_constants(module: nn.Module, _: object = None) -> None:
    """Compute the Wigner symbols anew in the dtype that they have: a cast from float32 leaves its rounding in them."""
    with torch.no_grad():
        for part in module.modules():
            for name, buffer in part.named_buffers(recurse=False):
                if name.startswith(_CONSTANT):
                    first, second, third = map(int, name.removeprefix(_CONSTANT).split("_"))
                    buffer.copy_(o3.wigner_3j(first, second, third, dtype=torch.float64))
