"""What a measurement of the receptive radius found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

FaultKind = Literal["global", "padding", "position", "size", "batch", "declared"]


@dataclass(frozen=True)
class Reach:
    """From where a score reads on one lattice at one noise level.

    Attributes:
        size: sites along each axis.
        sigma: noise level.
        below, above: largest steps from a site against and along each axis.
        whole: for each axis, whether the score reads all of it.
    """

    size: int
    sigma: float
    below: tuple[int, ...]
    above: tuple[int, ...]
    whole: tuple[bool, ...]


@dataclass(frozen=True)
class LayerReach:
    """From where the output of a layer reads, in the order in which layers are called.

    Attributes:
        name, type: of the layer.
        below, above, whole: as of :class:`Reach`, in steps of the field.
    """

    name: str
    type: str
    below: tuple[int, ...]
    above: tuple[int, ...]
    whole: tuple[bool, ...]


@dataclass(frozen=True)
class Fault:
    """What will not work on another size, or on a torus.

    Attributes:
        kind: ``global``: the score of a site reads the whole field; ``padding``: at the seam of a torus it is another
            rule; ``position``: it depends on where in the lattice the field is; ``size``: on the size itself;
            ``batch``: on the other fields; ``declared``: the radius is not the declared one.
        layer: the first that shows it; empty where none does.
        text: the fault in words.
    """

    kind: FaultKind
    layer: str
    text: str


@dataclass(frozen=True)
class RadiusReport:
    """A measured receptive radius.

    Attributes:
        name: of the module.
        radius: Chebyshev, in steps; none: global, or beyond the largest lattice.
        below, above: steps against and along each axis on the largest lattice.
        translation_period: the smallest translation of the field that the score moves with; none: there is none.
        reaches: by size and noise level.
        layers: on the largest lattice.
        faults: what was found beside the radius.
        refused: sizes that the module does not take, with its words.
        moved: whether the weights were moved before.
        sites: that were probed on every lattice.
        fields: likewise.
        seconds: time that it took.
    """

    name: str
    radius: int | None
    below: tuple[int, ...]
    above: tuple[int, ...]
    translation_period: int | None
    reaches: tuple[Reach, ...]
    layers: tuple[LayerReach, ...]
    faults: tuple[Fault, ...]
    refused: tuple[tuple[int, str], ...]
    moved: bool
    sites: int
    fields: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return asdict(self)

    def text(self, *, layers: bool = False) -> str:
        """The radius, the faults and the table.

        Args:
            layers: also the table of the layers.
        """
        lines = [f"{self.name}: {self._headline()}"]
        lines += [fault.text for fault in self.faults]
        lines += [f"Size {size} is refused: {why}" for size, why in self.refused]
        lines += ["", f"{'size':>6}  {'steps against and along each axis':34} sigma"]
        lines += [f"{size:6d}  {axes:34} {', '.join(levels)}" for (size, axes), levels in self._rows().items()]
        if layers:
            width = max([5, *(len(layer.name) for layer in self.layers)])
            lines += ["", f"{'layer':{width}}  {'type':24}  steps against and along each axis"]
            lines += [f"{layer.name:{width}}  {layer.type:24}  {_axes(layer)}" for layer in self.layers]
        weights = "moved from where they were" if self.moved else "as they are"
        lines += ["", f"{self.sites} sites of {self.fields} fields each, weights {weights}, {self.seconds:.1f} s."]
        return "\n".join(lines)

    def _rows(self) -> dict[tuple[int, str], list[str]]:
        """Noise levels by size and reach."""
        rows: dict[tuple[int, str], list[str]] = {}
        for reach in self.reaches:
            rows.setdefault((reach.size, _axes(reach)), []).append(f"{reach.sigma:.3g}")
        return rows

    def _headline(self) -> str:
        if self.radius is None:
            return "global: the score of a site reads the whole field."
        period = "" if self.translation_period in {1, None} else f", translation period {self.translation_period}"
        return f"receptive radius {self.radius}{period}."


def _axes(reach: Reach | LayerReach) -> str:
    each = zip(reach.below, reach.above, reach.whole, strict=True)
    return "   ".join("whole" if whole else f"-{below} +{above}" for below, above, whole in each)
