"""Balls and tubes in a box, seen in perspective: a small painter of scenes in three dimensions.

Matplotlib's axes in three dimensions sort whole collections by depth, not their members, so that balls and tubes that
pass before and behind each other come out wrong. Here everything is projected first and painted from back to front, in
colours that fade with the depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle, Patch, Polygon
from numpy.typing import NDArray

Points = NDArray[np.float64]
Colour = tuple[float, float, float]

_FOG = 0.55  # share of white in the colour of what is farthest
_EDGE = 0.45  # share of black in the outline
_BOX_COLOUR = "#8A949C"
_FLOOR_COLOUR = "#EEF1F3"


@dataclass(frozen=True)
class Camera:
    """From where a box is seen.

    Attributes:
        azimuth, elevation: angles in degrees, about the z axis and above the horizon.
        distance: of the eye from the centre of the box, in lengths of its longest edge.
    """

    azimuth: float = -62.0
    elevation: float = 20.0
    distance: float = 4.0

    def project(self, points: Points, size: Sequence[int]) -> Points:
        """Points ``(n, 3)`` of a box from the origin to ``size``, as ``(n, 3)``: right, up, and nearness.

        Right and up are in lattice steps at the centre of the box; they are multiplied by the nearness, which is one
        there and larger before it.
        """
        turn, lift = math.radians(self.azimuth), math.radians(self.elevation)
        towards = np.array([math.cos(lift) * math.cos(turn), math.cos(lift) * math.sin(turn), math.sin(lift)])
        right = np.array([-math.sin(turn), math.cos(turn), 0.0])
        up = np.cross(towards, right)
        seen = (points - np.asarray(size) / 2) @ np.stack([right, up, towards], axis=1)
        far = self.distance * max(size)
        nearness = far / (far - seen[:, 2])
        return np.stack([seen[:, 0] * nearness, seen[:, 1] * nearness, nearness], axis=1)


@dataclass
class Scene:
    """Balls and tubes in a box with ``size`` sites along each axis; a site is in the middle of its unit cell."""

    size: tuple[int, int, int]
    camera: Camera = field(default_factory=Camera)
    _drawn: list[tuple[float, list[tuple[Patch, Colour, Colour]]]] = field(default_factory=list)

    def ball(self, site: Sequence[float], radius: float, colour: Colour) -> None:
        """A ball around a site."""
        (x, y, nearness), size = self._place(site), radius
        size *= nearness
        tone, dark = self._fade(colour, nearness), self._fade(_darker(colour, _EDGE), nearness)
        light = self._fade(_lighter(colour, 0.65), nearness)
        shine = Circle((x - 0.3 * size, y + 0.34 * size), 0.26 * size)
        self._drawn.append((nearness, [(Circle((x, y), size), tone, dark), (shine, light, light)]))

    def tube(
        self,
        first: Sequence[float],
        second: Sequence[float],
        radius: float,
        colour: Colour,
        balls: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """A tube between the surfaces of the balls around two sites, which have the radii ``balls``."""
        start, stop = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
        step = (stop - start) / np.linalg.norm(stop - start)
        ends = np.array([self._place(start + balls[0] * step), self._place(stop - balls[1] * step)])
        along = ends[1, :2] - ends[0, :2]
        length = float(np.hypot(*along))
        across = np.array([-along[1], along[0]]) / length if length else np.zeros(2)
        corners = [
            end[:2] + sign * radius * end[2] * across
            for end, sign in zip(ends[[0, 1, 1, 0]], (1, 1, -1, -1), strict=True)
        ]
        nearness = float(ends[:, 2].mean())
        tone, dark = self._fade(colour, nearness), self._fade(_darker(colour, _EDGE), nearness)
        self._drawn.append((nearness, [(Polygon(np.array(corners), closed=True), tone, dark)]))

    def paint(self, axes: Axes) -> None:
        """Paint the box and what is in it, from back to front; the axes lose their frame and ticks."""
        self._paint_box(axes)
        order = sorted(self._drawn, key=lambda item: item[0])
        parts = [part for _, own in order for part in own]
        if parts:
            patches, faces, edges = zip(*parts, strict=True)
            collection = PatchCollection(list(patches), facecolors=list(faces), edgecolors=list(edges), linewidths=0.5)
            collection.set_rasterized(True)
            axes.add_collection(collection)
        axes.set_aspect("equal")
        axes.set_axis_off()
        corners = self._corners()
        axes.set_xlim(corners[:, 0].min() - 0.7, corners[:, 0].max() + 0.7)
        axes.set_ylim(corners[:, 1].min() - 0.9, corners[:, 1].max() + 0.3)

    def _place(self, site: Sequence[float]) -> tuple[float, float, float]:
        x, y, nearness = self.camera.project(np.array([site], dtype=float) + 0.5, self.size)[0]
        return float(x), float(y), float(nearness)

    def _fade(self, colour: Colour, nearness: float) -> Colour:
        near, far = (self._corners()[:, 2].max(), self._corners()[:, 2].min())
        return _lighter(colour, _FOG * (near - nearness) / (near - far))

    def _corners(self) -> Points:
        """The eight corners, projected; bit a of the index is the side along axis a."""
        sides = [[side * length for side, length in zip(corner, self.size, strict=True)] for corner in _CORNERS]
        return self.camera.project(np.array(sides, dtype=float), self.size)

    def _paint_box(self, axes: Axes) -> None:
        """The three faces behind, all edges, and the names of the axes along three of them."""
        corners = self._corners()
        back = int(corners[:, 2].argmin())
        faces = []
        for axis in range(3):
            first, second = (1 << other for other in range(3) if other != axis)
            faces.append(corners[[back, back ^ first, back ^ first ^ second, back ^ second], :2])
        collection = PatchCollection(
            [Polygon(face) for face in faces], facecolor=_FLOOR_COLOUR, edgecolor="none", zorder=0
        )
        axes.add_collection(collection)
        front = 7 ^ back
        edges = [(one, one ^ 1 << axis) for one in range(8) for axis in range(3) if not one >> axis & 1]
        for hidden, (width, order) in ((True, (0.9, 0.5)), (False, (0.7, 2.0))):
            chosen = [corners[list(edge), :2] for edge in edges if (front in edge) is not hidden]
            axes.add_collection(
                LineCollection(
                    chosen, colors=_BOX_COLOUR, linewidths=width, alpha=0.9 if hidden else 0.45, zorder=order
                )
            )
        for axis, name in enumerate("xyz"):
            self._name_axis(axes, corners, axis, name)

    def _name_axis(self, axes: Axes, corners: Points, axis: int, name: str) -> None:
        """Write the name beside the middle of the outermost edge along the axis: the lowest, or the leftmost for z."""
        edges = [(one, one | 1 << axis) for one in range(8) if not one >> axis & 1]
        middles = np.array([corners[list(edge), :2].mean(0) for edge in edges])
        place = middles[middles[:, 0].argmin() if axis == 2 else middles[:, 1].argmin()]
        outwards = place - corners[:, :2].mean(0)
        place = place + 0.45 * outwards / np.hypot(*outwards)
        axes.text(
            float(place[0]),
            float(place[1]),
            name,
            ha="center",
            va="center",
            fontsize=8.5,
            color="#55606B",
            style="italic",
        )


_CORNERS = [tuple(index >> axis & 1 for axis in range(3)) for index in range(8)]


def colour(name: str) -> Colour:
    """A colour by its name."""
    return to_rgb(name)


def _lighter(tone: Colour, amount: float) -> Colour:
    red, green, blue = ((1 - amount) * part + amount for part in tone)
    return red, green, blue


def _darker(tone: Colour, amount: float) -> Colour:
    red, green, blue = ((1 - amount) * part for part in tone)
    return red, green, blue
