r"""Samples in files as a teacher: it draws its fields, each once, and knows no score of its own.

The samples are divided into training and held-out ones (:mod:`sizetransfer.systems.dataset.splitting`). Which field a
draw gives depends on the name of the stream and the field's number alone: a permutation of the samples belongs to
each name, so that a stream gives no sample twice, and the streams that branch off one name (the fields of a measure,
and others to compare them with) share one permutation and have no sample in common. A measure that asks for more fields
than are held out is refused. Training draws anew at every step. Of crops smaller than a region, training draws windows
at random places, and measures get the tiles that the held-out regions are cut into.

Of a law of which only samples are known, every capability but drawing is missing, unless the specification names
functions that answer (:mod:`sizetransfer.teachers.functions`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context, Exactness, Sample, Split, Teacher
from sizetransfer.contracts.randomness import Label, Stream, integers, uniform
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.stored import Boundary
from sizetransfer.systems.dataset.contents import Fields, how_read, opened
from sizetransfer.systems.dataset.scale import Scale, measured, require_finite
from sizetransfer.systems.dataset.splitting import Parts, Region, divided, samples_of
from sizetransfer.systems.dataset.stored import FileFields
from sizetransfer.teachers.by_path import functions_of
from sizetransfer.teachers.functions import Answers, capability_names, with_capabilities

if TYPE_CHECKING:
    from sizetransfer.systems.dataset.spec import DatasetTeacherSpec

Block = NDArray[np.float64]

MANY = 2**12
"""Fields whose order is not found by putting all of them in order."""

REMEMBERED = 256
"""Roots of streams whose sets of fields are remembered."""


@dataclass(frozen=True, eq=False)
class Contents:
    """What a data set is made of.

    Attributes:
        files: with their arrays.
        parts: regions by the side of the split that they are on.
        scale: of the training regions.
    """

    files: tuple[Fields, ...]
    parts: Parts
    scale: Scale

    def regions(self, part: Split | None) -> tuple[Region, ...]:
        """Those of a part, or all."""
        return self.parts[part] if part else (*self.parts["training"], *self.parts["held out"])

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """Lengths of the regions along their shortest axis."""
        return tuple(sorted({min(region.size) for region in self.regions(None)}))


@dataclass(frozen=True)
class _Row:
    """A field ``(C, *S)``, its condition ``(K, *S)`` and its live sites ``(1, *S)``."""

    x: Block
    condition: Block | None
    live: NDArray[np.bool_] | None


def dataset_teacher(spec: DatasetTeacherSpec) -> DatasetTeacher:
    """Open the files of a specification; see its ``build``."""
    files = opened(spec)
    parts = divided(files, spec.split, spec.seed)
    contents = Contents(files, parts, measured(files, parts["training"]))
    names = capability_names(list(spec.functions), normalised=spec.normalised)
    kind: type[DatasetTeacher] = with_capabilities(DatasetTeacher, names)
    return kind(spec, contents)


def stored_fields(spec: DatasetTeacherSpec) -> FileFields:
    """All fields of a specification, which need be neither divided nor many; see ``DatasetTeacherSpec.build``."""
    files = opened(spec)
    regions = [region for number, file in enumerate(files) for region in samples_of(number, file)]
    return FileFields(files, regions, one_boundary(spec), how_read(files))


def one_boundary(spec: DatasetTeacherSpec) -> Boundary:
    """What is beyond the last site of every axis.

    Raises:
        SpecError: axes end differently.
    """
    if isinstance(spec.boundary, str):
        return spec.boundary
    raise SpecError(
        "Fields of which some axes close and others have walls are not diagnosed from data alone.",
        where="boundary",
        expected="periodic, walls or crop",
        got=", ".join(spec.boundary),
        fix="measure denoising-loss in a run, which takes them; or cut windows away from the walls and say crop",
    )


class DatasetTeacher(Answers, Teacher):
    """Samples in files; see the module.

    Attributes:
        contents: files, parts and scale.
        part: the side of the split that it draws from; none: all.
        notes: what was found in the files, in words.
    """

    draws_fields_apart = True

    def __init__(self, spec: DatasetTeacherSpec, contents: Contents, part: Split | None = None) -> None:
        super().__init__(_field(spec, contents))
        self.spec, self.contents, self.part = spec, contents, part
        self.functions, self.libraries = functions_of({str(name): path for name, path in spec.functions.items()}), {}
        self.translation_period, self.even = spec.translation_period, spec.even
        names = capability_names(list(spec.functions), normalised=spec.normalised)
        self.exactness = {"sample": Exactness("monte_carlo"), **{name: Exactness() for name in names}}
        self._sets: dict[tuple[Label, ...], list[tuple[Label, ...]]] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        return _notes(self.spec, self.contents)

    @property
    def boundary(self) -> Boundary:
        """What is beyond the last site: ``walls`` where any axis has them."""
        return self.spec.boundary if isinstance(self.spec.boundary, str) else "walls"

    @property
    def dim(self) -> int:
        """Axes of the lattice."""
        return self.field.dim

    @property
    def channels(self) -> int:
        """Components of a site."""
        return self.field.channels

    @property
    def read_as(self) -> tuple[str, ...]:
        """How files were read where nobody said it, in words."""
        return how_read(self.contents.files)

    @cached_property
    def stored(self) -> FileFields:
        """The fields of its side of the split, in their order in the files and in the teacher's units.

        Raises:
            SpecError: they have masks or conditions, or axes that end differently.
        """
        regions = self.contents.regions(self.part)
        return FileFields(self.contents.files, regions, one_boundary(self.spec), self.read_as, self._in_units)

    def sizes(self) -> tuple[int, ...]:
        """Sites along each axis of the fields, ascending; of crops that are cut, of the blocks."""
        return self.stored.sizes()

    def count(self, size: int) -> int:
        """How many fields there are of a size."""
        return self.stored.count(size)

    def rows(self, size: int, indices: Sequence[int] | slice) -> Tensor:
        """Some fields of a size, in their order in the files: ``(n, channels, *size)``, float64."""
        return self.stored.rows(size, indices)

    def split(self, part: Split) -> DatasetTeacher:
        """The teacher of one side of the split."""
        if part == self.part:
            return self
        return type(self)(self.spec, self.contents, part).to(self.anchor).frozen()

    def check_size(self, size: int) -> None:
        super().check_size(size)
        if self._fields(size):
            return
        sides = sorted({min(region.size) for region in self.contents.regions(self.part)})
        raise OracleError(
            f"The data set has no {self.part or ''} fields of this size.".replace("  ", " "),
            where="teacher of kind dataset, size",
            expected=f"at most {max(sides)}" if self.field.crop else f"one of {sides}",
            got=str(size),
            fix="choose such a size, or give a file of this one",
        )

    def independent_fields(self, size: int) -> int:
        """How many fields of a size there are; of crops, windows that do not overlap."""
        return len(self._fields(size))

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        """Fields of the data set, none of them twice.

        Raises:
            OracleError: there are none of this size, or not so many.
            SpecError: a number is not finite.
        """
        self.check_size(size)
        if self.field.crop and self.part == "training":
            chosen = self._windows(batch, size, generator)
        else:
            fields = self._fields(size)
            chosen = [fields[number] for number in self._numbers(batch, len(fields), size, generator)]
        return self._read(chosen, size)

    def _fields(self, size: int) -> tuple[Region, ...]:
        return _fields(self.contents, self.part, size, self.field.crop)

    def _windows(self, batch: int, size: int, generator: torch.Generator) -> list[Region]:
        """Windows at random places of random regions."""
        regions = _large(self.contents, self.part, size)
        like = self.anchor.new_zeros((), dtype=torch.float64).cpu()
        chosen = integers(len(regions), (batch,), generator=generator, like=like).tolist()
        shares = uniform((batch, self.field.dim), generator=generator, like=like).tolist()
        found = []
        for number, share in zip(chosen, shares, strict=True):
            region = regions[number]
            offset = [int(s * (length - size + 1)) for s, length in zip(share, region.size, strict=True)]
            found.append(region.window(offset, size))
        return found

    def _numbers(self, batch: int, count: int, size: int, generator: torch.Generator) -> list[int]:
        """Which of the fields a stream's batch is made of."""
        if not isinstance(generator, Stream):
            _require_fields(batch, count, size, self.part)
            order = torch.randperm(count, generator=generator, device=generator.device)
            return [int(number) for number in order[:batch]]
        total = max(generator.total or 0, generator.first + batch)
        before = self._set(generator.branch("data set"))  # the next call of the same stream gives others
        start = before * total
        _require_fields(total, count, size, self.part, sets=before + 1)
        numbers = _order(generator.root, size, count, start + total)
        return numbers[start + generator.first :][:batch]

    def _set(self, generator: Stream) -> int:
        """How many sets of fields this stream's root has named before this one."""
        known = self._sets.setdefault(generator.root, [])
        if len(self._sets) > REMEMBERED:
            del self._sets[next(iter(self._sets))]
        if generator.labels not in known:
            known.append(generator.labels)
        return known.index(generator.labels)

    def _read(self, chosen: Sequence[Region], size: int) -> Sample:
        rows, domain = [self._one(region) for region in chosen], self.domain(size)
        condition = [row.condition for row in rows if row.condition is not None]
        live = [row.live for row in rows if row.live is not None]
        context = Context(
            domain,
            self._tensor(condition) if condition else None,
            torch.from_numpy(np.stack(live)).to(self.anchor.device) if live else None,
        )
        return Sample(self._tensor([row.x for row in rows]), context)

    def _one(self, region: Region) -> _Row:
        file, place = self.contents.files[region.file], (region.row, region.low, region.high)
        x, live = file.numbers.window(*place), file.live(*place)
        require_finite(file, region, x, live)
        x = self._in_units(x)
        condition = None if file.condition is None else file.condition.window(*place)
        return _Row(x if live is None else np.where(live, x, 0.0), condition, live)

    def _in_units(self, x: Block) -> Block:
        scale, shape = self.contents.scale, (-1, *[1] * self.field.dim)
        if self.spec.units == "data":
            return x
        centred = x - np.reshape(scale.mean, shape)
        if self.spec.units == "standard":
            centred = centred / np.reshape(scale.deviation, shape)
        return np.asarray(centred)

    def _tensor(self, rows: Sequence[Block]) -> Tensor:
        return torch.from_numpy(np.stack(rows)).to(self.anchor)


def _field(spec: DatasetTeacherSpec, contents: Contents) -> FieldInfo:
    first = contents.files[0]
    return FieldInfo(
        dim=first.numbers.layout.dim,
        channels=first.numbers.channels,
        components=spec.components,
        periodic=spec.boundary == "periodic",
        closed=spec.closed(first.numbers.layout.dim),
        crop=spec.boundary == "crop",
        condition_channels=0 if first.condition is None else first.condition.channels,
        sigma_data=1.0 if spec.units == "standard" else contents.scale.pooled,
    )


@lru_cache(maxsize=64)
def _fields(contents: Contents, part: Split | None, size: int, crop: bool) -> tuple[Region, ...]:
    """The fields of a size that have no site in common."""
    regions = contents.regions(part)
    if crop:
        return tuple(tile for region in regions for tile in region.tiles(size))
    return tuple(region for region in regions if set(region.size) == {size})


@lru_cache(maxsize=64)
def _large(contents: Contents, part: Split | None, size: int) -> tuple[Region, ...]:
    """The regions that a window fits into."""
    return tuple(region for region in contents.regions(part) if min(region.size) >= size)


@lru_cache(maxsize=16)
def _order(root: tuple[Label, ...], size: int, count: int, asked: int) -> list[int]:
    """The first fields of a size, of ``count``, in the order in which the streams of a root take them.

    Of many fields they are drawn one after another, and those that came before are passed over.
    """
    like, name = torch.zeros((), dtype=torch.float64), (*root, "order of a data set", size)
    if count <= MANY:
        keys = uniform((count,), generator=Stream(*name), like=like)
        return [int(number) for number in keys.argsort(stable=True)[:asked]]
    found: dict[int, None] = {}
    block = 0
    while len(found) < asked:
        found |= dict.fromkeys(integers(count, (MANY,), generator=Stream(*name, block), like=like).tolist())
        block += 1
    return list(found)[:asked]


def _require_fields(asked: int, count: int, size: int, part: Split | None, *, sets: int = 1) -> None:
    """Refuse more fields than there are, of one set or of several that have none in common."""
    if sets * asked <= count:
        return
    raise OracleError(
        "The data set has too few independent fields: none is given twice.",
        where=f"teacher of kind dataset, size {size}",
        expected=f"at most {count} {part or ''} fields in all".replace("  ", " "),
        got=str(asked) if sets == 1 else f"{sets} sets of {asked}",
        fix="ask for fewer (fields: or batch:), change split.held_out, or give more data",
    )


def _notes(spec: DatasetTeacherSpec, contents: Contents) -> tuple[str, ...]:
    scale = contents.scale
    found = list(how_read(contents.files))
    found += _counts(contents, "blocks" if spec.split.block else "samples")
    units = {
        "data": "as in the files",
        "centred": "centred (less the mean)",
        "standard": "standard (less the mean, over the deviation)",
    }
    numbers = ", ".join(f"{m:.4g} ± {s:.4g}" for m, s in zip(scale.mean, scale.deviation, strict=True))
    found.append(f"fields {units[spec.units]}; mean ± deviation of each channel in the files: {numbers}")
    if scale.share < 1:
        found.append(f"the scale was measured on {scale.share:.2g} of the training fields")
    if spec.units == "data" and any(abs(m) > s for m, s in zip(scale.mean, scale.deviation, strict=True)):
        found.append("the mean is larger than the deviation: units: centred makes a student's task easier")
    return tuple(found)


def _counts(contents: Contents, what: str) -> list[str]:
    """How many regions of each size are on each side."""
    tables = {name: Counter(region.size for region in regions) for name, regions in contents.parts.items()}
    found = []
    for size in sorted({region.size for region in contents.regions(None)}):
        sites = " x ".join(map(str, size))
        counts = ", ".join(f"{table[size]} {name}" for name, table in tables.items())
        found.append(f"{what} of {sites} sites: {counts}")
    return found
