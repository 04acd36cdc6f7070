"""What a user writes of samples in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import Spec, TeacherSpec
from sizetransfer.contracts.stored import Boundary, FileOfFields, StoredFields
from sizetransfer.registry.importing import look_beside
from sizetransfer.systems.dataset.readers import SUFFIXES
from sizetransfer.teachers.by_path import ORACLES, ImportPath, code_of

if TYPE_CHECKING:
    from sizetransfer.systems.dataset.teacher import DatasetTeacher

Whole = Literal["periodic", "walls"]
Units = Literal["data", "centred", "standard"]
Oracle = Literal["score", "log_density", "smoothed_score", "posterior_mean", "posterior_covariance"]


class ArraySpec(Spec):
    """An array in a file; a path alone stands for the only array of the file.

    Attributes:
        path: the file or folder, relative to the working directory.
        array: name of the array, where the file has several.
        layout: a letter an axis: B samples, C channels, and L, H W or D H W; none: recognised.
    """

    path: Path
    array: str | None = None
    layout: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value


class FileSpec(ArraySpec):
    """Fields of one size in a file, with what stands beside them.

    Attributes:
        condition: what a student may see beside a field, K numbers a site: as many samples, or one for all.
        mask: true, or not zero, where a site is live: as many samples, or one for all.
    """

    condition: ArraySpec | None = None
    mask: ArraySpec | None = None


class SplitSpec(Spec):
    """Which fields students are trained on and which measures are taken of.

    Attributes:
        by: ``samples``: some of the samples, chosen by the seed, where they are independent; ``sequence``: the last
            ones of every file, for snapshots of a chain; ``blocks``: blocks that every sample is cut into, for crops.
        held_out: share that is held out.
        gap: what lies between the two parts belongs to neither: so many samples of a sequence, so many sites between
            any two blocks.
        block: sites along each axis of a block.
    """

    by: Literal["samples", "sequence", "blocks"] = "samples"
    held_out: float = Field(0.25, gt=0, lt=1)
    gap: int = Field(0, ge=0)
    block: int | None = Field(None, ge=2)

    @model_validator(mode="after")
    def _block_given(self) -> SplitSpec:
        if (self.by == "blocks") != (self.block is not None):
            raise SpecError(
                "A split by blocks needs their side, and no other split takes it.",
                where="split.block",
                expected="by: blocks together with block: sites along each axis",
                got=f"by: {self.by}, block: {self.block}",
                fix="write for example split: {by: blocks, block: 96, gap: 16}",
            )
        return self


class DatasetTeacherSpec(TeacherSpec):
    """Samples in files: .npy, .npz, .safetensors, .zarr, .h5; several files for several sizes, or more of one."""

    file_suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    kind: Literal["dataset"] = "dataset"
    files: tuple[FileSpec, ...] = Field(min_length=1, description="files of fields: paths, or path, array, layout, ...")
    held_out_files: tuple[FileSpec, ...] = Field(
        (), description="files that are held out as a whole; of a size that they have, all of files is trained on"
    )
    boundary: Boundary | tuple[Whole, ...] = Field(
        description="tori; boxes with walls; crops of larger fields, of any size up to theirs; or for each axis "
        "periodic or walls"
    )
    layout: str | None = Field(None, description="a letter an axis, such as BHW or BCHW; none: recognised and said")
    dim: int | None = Field(None, ge=1, le=3, description="axes of the lattice; none: as the layout says")
    channels: int | None = Field(None, ge=1, description="numbers of a site; none: as the layout says")
    components: Literal["scalars", "vector"] = Field("scalars", description="whether channels turn with the lattice")
    units: Units = Field(
        "data", description="as in the files; less the mean of each channel; or over its deviation too"
    )
    split: SplitSpec = Field(SplitSpec(), description="how training and held-out fields are told apart")
    translation_period: int | None = Field(None, ge=1, description="translations that leave the law unchanged")
    even: bool = Field(False, description="whether the law is unchanged by x -> -x")
    functions: Mapping[Oracle, ImportPath] = Field(
        {}, description=f"oracles of the law by import path, package.module:function: {', '.join(ORACLES)}"
    )
    normalised: bool = Field(True, description="whether log_density integrates to one; else it is an energy")

    @field_validator("boundary")
    @classmethod
    def _axes_alike(cls, boundary: Boundary | tuple[Whole, ...]) -> Boundary | tuple[Whole, ...]:
        """One word where all axes have the same."""
        return boundary[0] if isinstance(boundary, tuple) and len(set(boundary)) == 1 else boundary

    @model_validator(mode="after")
    def _blocks_of_crops(self) -> DatasetTeacherSpec:
        if self.split.by == "blocks" and self.boundary != "crop":
            raise SpecError(
                "A block of a field has open sides, whatever the field has.",
                where="split.by, boundary",
                expected="boundary: crop for a split by blocks",
                got=f"boundary: {self.boundary}",
                fix="write boundary: crop, or split by samples",
            )
        return self

    @model_validator(mode="after")
    def _functions_of_the_data(self) -> DatasetTeacherSpec:
        if self.functions and self.units != "data":
            raise SpecError(
                "Functions know the law in the units of the data.",
                where="units, functions",
                expected="units: data where functions are given",
                got=f"units: {self.units}",
                fix="leave units out",
            )
        return self

    def closed(self, dim: int) -> tuple[bool, ...] | None:
        """Which axes of the lattice are closed, where they differ.

        Raises:
            SpecError: the lattice has another number of axes.
        """
        if isinstance(self.boundary, str):
            return None
        if len(self.boundary) != dim:
            raise SpecError(
                "The boundary does not fit the axes of the lattice.",
                where="teacher of kind dataset, boundary",
                expected=f"a word, or {dim} words: periodic or walls for each axis, in the order of the file",
                got=", ".join(self.boundary) or "none",
                fix=f"write for example boundary: [periodic{', walls' * (dim - 1)}]",
            )
        return tuple(one == "periodic" for one in self.boundary)

    @property
    def names_code(self) -> bool:  # type: ignore[override]
        """Whether building it runs code that it names."""
        return bool(self.functions)

    def code(self) -> tuple[str, ...]:
        """Names of the modules whose code takes part, those of the functions among them."""
        return tuple(dict.fromkeys([*super().code(), *code_of(self.functions.values())]))

    def look_beside(self, folder: Path) -> None:
        for path in self.functions.values():
            look_beside(path, folder)

    @classmethod
    def stored_fields(
        cls, files: Sequence[FileOfFields], *, boundary: Boundary, layout: str | None = None
    ) -> StoredFields:
        """The fields of some files, all of them; see :class:`sizetransfer.contracts.stored.ReadsFiles`."""
        from sizetransfer.systems.dataset.teacher import stored_fields

        given = [str(file) if isinstance(file, Path) else file for file in files]
        fields = {"kind": cls.kind_name(), "files": given, "boundary": boundary, "layout": layout}
        return stored_fields(cls.parse(fields, where="data"))

    def build(self) -> DatasetTeacher:
        """Open the files and measure their scale.

        Raises:
            SpecError: a file is missing, damaged, ambiguous or contradicts another; there are too few samples; numbers
                are not finite or do not vary.
        """
        from sizetransfer.systems.dataset.teacher import dataset_teacher

        return dataset_teacher(self)
