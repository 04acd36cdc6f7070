"""The figure ``hard-valid-sample``: one sample with ports, types and field in a three-dimensional box.

:func:`draw_sample` draws any sample whose teacher knows classes of its sites and which pairs of them are bonded
(:class:`sizetransfer.contracts.oracle.HasSiteClasses`). Colours of types are those of Okabe and Ito; the field is on a
diverging map from purple over white to orange, told apart with every common colour vision, and the size of a ball grows
with its magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError, SizetransferError, SpecError
from sizetransfer.contracts.oracle import HasSiteClasses, Sample, SiteClasses, Teacher
from sizetransfer.contracts.randomness import stream
from sizetransfer.drawing import Drawing, Omitted, style
from sizetransfer.report.data import ReportData
from sizetransfer.systems.hard_valid.scene import Camera, Colour, Scene, colour

NAME = "hard-valid-sample"
LARGEST_BOX = 8
"""Sites along an axis beyond which a box is not drawn in a report: nobody could read it."""
MOST_TEACHERS = 4
"""Teachers beyond which the fields of others are not drawn: the caption names them."""
_BOND = "#6B747C"
_RADIUS, _TUBE = 0.27, 0.09


def draw_sample(
    teacher: Teacher, sample: Sample, *, row: int = 0, division: str = "type", camera: Camera | None = None
) -> Figure:
    """Draw one sample twice: its bonds with its classes of sites as colours, and its field.

    Args:
        teacher: knows which sites are alike and which are bonded
            (:class:`~sizetransfer.contracts.oracle.HasSiteClasses`).
        sample: of that teacher, in a three-dimensional box.
        row: row of the batch.
        division: the division of the sites that decides the colours in the first panel.
        camera: from where to look.

    Returns:
        A figure with its own canvas; ``figure.savefig("sample.png", dpi=150)`` writes it. Only the first channel of the
        field is drawn.

    Raises:
        SpecError: the teacher knows no classes, there is no such division, row or bond, or the box has not three axes.

    Example:
        >>> import torch, sizetransfer as st
        >>> from sizetransfer.systems.hard_valid.pictures import draw_sample
        >>> teacher = st.teacher("hard-valid", preset="medium")
        >>> sample = teacher.sample(1, 4, generator=torch.Generator().manual_seed(0))
        >>> len(draw_sample(teacher, sample).axes)
        3
    """
    picture = _Picture.of(teacher, sample, row, division)
    with style.drawing():
        figure = style.new_figure(7.0, 3.7)
        left, right = figure.subplots(1, 2)
        _draw_classes(left, picture, camera or Camera())
        _draw_field(right, picture, camera or Camera(), picture.scale)
        left.set_title(f"bonds, and {division}s as colours", loc="left")
        right.set_title("field", loc="left")
        _colour_bar(figure, [right], picture.scale)
        _legend(figure, picture)
        style.settle(figure)
    return figure


def hard_valid_sample(data: ReportData) -> Drawing | Omitted:
    """One sample: ports and types of the first teacher with site classes, and the fields of the first few of them."""
    # A teacher that runs code that data names is not built for a picture.
    specs = {n: spec for n, spec in data.experiment.teachers.items() if spec.has_site_classes and not spec.names_code}
    if not specs:
        return Omitted(NAME, "no teacher of this experiment knows classes of its sites")
    shown = dict(list(specs.items())[:MOST_TEACHERS])
    seed, size = data.experiment.evaluation.seed, data.experiment.training.size
    try:
        pictures = {name: _drawn(spec.build(), size, seed) for name, spec in shown.items()}
    except SizetransferError as error:  # a report is written whether or not there is such a picture
        return Omitted(NAME, f"there is no picture of a sample: {str(error).splitlines()[0]}")
    first = next(iter(pictures.values()))
    columns = 2
    rows = -(-(1 + len(pictures)) // columns)
    figure = style.new_figure(6.2, 2.85 * rows + 0.3)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    scale = max(picture.scale for picture in pictures.values())
    _draw_classes(panels[0], first, Camera())
    panels[0].set_title("ports and types", loc="left", fontweight="bold")
    for axes, (name, picture) in zip(panels[1:], pictures.items(), strict=False):
        _draw_field(axes, picture, Camera(), scale)
        axes.set_title(f"field, {name}", loc="left", fontweight="bold")
    for empty in panels[1 + len(pictures) :]:
        empty.remove()
    _colour_bar(figure, panels[1 : 1 + len(pictures)], scale)
    _legend(figure, first)
    return Drawing(NAME, "One sample", _caption(pictures, [name for name in specs if name not in shown]), figure)


def _drawn(teacher: Teacher, training_size: int, seed: int) -> _Picture:
    """A sample of the training size, or of the largest box that can be read; the same stream for every teacher."""
    size = min(training_size, LARGEST_BOX)
    try:
        teacher.check_size(size)
    except OracleError:
        size = training_size
    return _Picture.of(teacher, teacher.sample(1, size, generator=stream(seed, "sample of the report")), 0, "type")


# --- what is drawn ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Picture:
    """One row of a sample, ready to be drawn.

    Attributes:
        size: sites along each axis.
        sites: coordinates of the sites that are drawn.
        classes: index of the class of each.
        names: of the classes.
        division: what they are classes of.
        values: the field's first channel on each.
        bonds: pairs of coordinates.
    """

    size: tuple[int, int, int]
    sites: tuple[tuple[int, ...], ...]
    classes: tuple[int, ...]
    names: tuple[str, ...]
    division: str
    values: tuple[float, ...]
    bonds: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @classmethod
    def of(cls, teacher: Teacher, sample: Sample, row: int, division: str) -> _Picture:
        lattice, classes = _require(teacher, sample, row, division)
        labels = classes.sites[division].labels[row].cpu()
        places = (labels >= 0).nonzero()
        flat = torch.arange(lattice.sites).reshape(lattice.size)
        site_of = {int(flat[tuple(place)]): tuple(place) for place in places.tolist()}
        pairs = classes.pairs["bonded"].cpu()
        bonds = tuple((site_of[here], site_of[there]) for of, here, there in pairs.T.tolist() if of == row)
        x, y, z = lattice.size
        return cls(
            size=(x, y, z),
            sites=tuple(site_of.values()),
            classes=tuple(labels[labels >= 0].tolist()),
            names=classes.sites[division].names,
            division=division,
            values=tuple(sample.x[row, 0].detach().cpu()[labels >= 0].double().tolist()),
            bonds=bonds,
        )

    @property
    def scale(self) -> float:
        """Magnitude of the field at which the colours end: all but a twentieth of the sites are below."""
        magnitudes = sorted(map(abs, self.values))
        return (magnitudes[int(0.95 * len(magnitudes))] if magnitudes else 0.0) or 1.0


def _require(teacher: Teacher, sample: Sample, row: int, division: str) -> tuple[Lattice, SiteClasses]:
    """The box and the classes of its sites, if they can be drawn."""
    lattice, rows = sample.context.domain, len(sample.x)
    classes = teacher.site_classes(sample) if isinstance(teacher, HasSiteClasses) else SiteClasses({}, {})
    boxed = isinstance(lattice, Lattice) and lattice.dim == 3
    if not (boxed and division in classes.sites and "bonded" in classes.pairs and 0 <= row < rows):
        raise SpecError(
            "The sample cannot be drawn.",
            where="draw_sample",
            expected="a teacher with site classes and bonds, a three-dimensional box, a row of the batch, a division "
            f"of the sites ({', '.join(classes.sites) or 'it has none'})",
            got=f"{type(teacher).__name__}, {lattice}, row {row} of {rows}, division {division!r}",
            fix="draw a sample of a teacher such as st.teacher('hard-valid')",
        )
    return cast(Lattice, lattice), classes


# --- panels -----------------------------------------------------------------------------------------------------------


def _draw_classes(axes: Axes, picture: _Picture, camera: Camera) -> None:
    colours = [colour(style.COLOURS[index % len(style.COLOURS)]) for index in range(len(picture.names))]
    _draw(axes, picture, camera, [(_RADIUS, colours[own]) for own in picture.classes])


def _draw_field(axes: Axes, picture: _Picture, camera: Camera, largest: float) -> None:
    colours, looks = _field_colours(), []
    for value in picture.values:
        share = max(-1.0, min(1.0, value / largest))
        red, green, blue, _ = colours(0.5 + 0.5 * share)
        looks.append((_RADIUS * (0.6 + 0.6 * abs(share)), (red, green, blue)))
    _draw(axes, picture, camera, looks)


def _draw(axes: Axes, picture: _Picture, camera: Camera, looks: Sequence[tuple[float, Colour]]) -> None:
    """The bonds, and a ball with its radius and colour on every site."""
    scene, radii = Scene(picture.size, camera), {}
    for site, (radius, own) in zip(picture.sites, looks, strict=True):
        scene.ball(site, radius, own)
        radii[site] = radius
    for here, there in picture.bonds:
        scene.tube(here, there, _TUBE, colour(_BOND), (radii[here], radii[there]))
    scene.paint(axes)


def _field_colours() -> Colormap:
    return mpl.colormaps["PuOr_r"]


def _colour_bar(figure: Figure, panels: Sequence[Axes], largest: float) -> None:
    mappable = ScalarMappable(Normalize(-largest, largest), _field_colours())
    bar = figure.colorbar(mappable, ax=list(panels), shrink=0.5, aspect=25, pad=0.01, extend="both")
    bar.set_label("field $x$")


def _legend(figure: Figure, picture: _Picture) -> None:
    shown = [(name, style.COLOURS[index % len(style.COLOURS)]) for index, name in enumerate(picture.names)]
    ball = {"marker": "o", "linestyle": "none", "markersize": 9}
    handles = [Line2D([], [], color=tone, label=f"{picture.division} {name}", **ball) for name, tone in shown]  # type: ignore[arg-type]
    handles.append(Line2D([], [], color=_BOND, linewidth=4, label="bond"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _caption(pictures: Mapping[str, _Picture], left_out: Sequence[str]) -> str:
    names, first = list(pictures), next(iter(pictures.values()))
    alike = all((one.sites, one.classes) == (first.sites, first.classes) for one in pictures.values())
    whose = "of all of them" if alike else f"of {names[0]}"
    side = " x ".join(map(str, first.size))
    widest = " in the field with the largest values" if len(names) > 1 else ""
    others = f" The fields of {', '.join(left_out)} are not shown." if left_out else ""
    return (
        f"A sample in a box of {side} sites, {len(first.sites)} of them occupied. First: matched ports as bonds and "
        f"types as colours{f', {whose}' if len(names) > 1 else ''}. Then the field as hue and size of a ball; colours "
        f"and sizes end at what a twentieth of the sites exceed{widest}.{others} Empty sites are not drawn; what is "
        "farther away is paler."
    )
