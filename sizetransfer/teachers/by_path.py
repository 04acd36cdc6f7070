"""Functions by their import paths, as an experiment file names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import TeacherSpec
from sizetransfer.registry.importing import imported, look_beside, module_of
from sizetransfer.teachers.functions import Function, FunctionTeacher, oracle_from_functions

ORACLES = ("score", "log_density", "smoothed_score", "posterior_mean", "posterior_covariance")
"""Names of the functions that are oracles."""

ImportPath = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]


class FunctionsSpec(TeacherSpec):
    """Functions by their import paths ``package.module:function``; see ``sizetransfer.oracle_from_functions``.

    The specification names code, and building it runs this code: only open files of people whom you trust. The modules
    and what they import take part in what a training is known by, and so do ``files``.
    """

    names_code: ClassVar[bool] = True

    kind: Literal["functions"] = "functions"
    score: ImportPath | None = Field(None, description="score(x), gradient of the log-density")
    log_density: ImportPath | None = Field(None, description="log_density(x), of shape (B,)")
    sample: ImportPath | None = Field(None, description="sample(batch, size, seed), independent draws")
    smoothed_score: ImportPath | None = Field(None, description="smoothed_score(x, sigma)")
    posterior_mean: ImportPath | None = Field(None, description="posterior_mean(x, sigma), E[X_0|x]")
    posterior_covariance: ImportPath | None = Field(None, description="posterior_covariance(x, sigma, site)")
    dim: int = Field(2, ge=1, description="axes of the lattice")
    channels: int = Field(1, ge=1, description="numbers a site")
    periodic: bool = Field(True, description="torus or open box")
    sigma_data: float | None = Field(None, gt=0, description="standard deviation of one number; none: measured")
    sizes: tuple[int, ...] | None = Field(None, description="sizes at which the functions are defined; none: all")
    normalised: bool = Field(True, description="whether the density integrates to one")
    exact_sampler: bool = Field(True, description="whether draws are exact, and not those of a Markov chain")
    translation_period: int | None = Field(None, ge=1, description="translations that leave the law unchanged")
    even: bool = Field(False, description="whether the law is unchanged by x -> -x")
    files: tuple[Path, ...] = Field((), description="files that the functions read, whose content takes part")

    @model_validator(mode="after")
    def _functions_named(self) -> FunctionsSpec:
        if not self.paths:
            raise SpecError(
                "No function is named.",
                where="functions",
                expected=f"an import path under one of {', '.join((*ORACLES, 'sample'))}",
                got="none",
                fix="write for example score: mypackage.law:score",
            )
        return self

    @property
    def paths(self) -> dict[str, str]:
        """Import paths by the name of the function."""
        found = {name: getattr(self, name) for name in (*ORACLES, "sample")}
        return {name: path for name, path in found.items() if path is not None}

    def code(self) -> tuple[str, ...]:
        """Names of the modules whose code takes part, those of the functions among them."""
        return tuple(dict.fromkeys([*super().code(), *code_of(self.paths.values())]))

    def look_beside(self, folder: Path) -> None:
        for path in self.paths.values():
            look_beside(path, folder)

    def build(self) -> FunctionTeacher:
        named = set(type(self).model_fields) - {"kind", "seed", "files", "sample", *ORACLES}
        arguments: dict[str, Any] = {name: getattr(self, name) for name in sorted(named)}
        arguments |= functions_of(self.paths)
        return oracle_from_functions(**arguments)


def functions_of(paths: Mapping[str, str]) -> dict[str, Function]:
    """The functions at import paths ``package.module:function``.

    Raises:
        SpecError: there is no such module or function.
    """
    return {name: imported(path, what="function", where=name) for name, path in paths.items()}


def code_of(paths: Iterable[str]) -> tuple[str, ...]:
    """Names of the modules of some import paths, found in the working directory too."""
    for path in (paths := tuple(paths)):
        look_beside(path, Path.cwd())
    return tuple(map(module_of, paths))
