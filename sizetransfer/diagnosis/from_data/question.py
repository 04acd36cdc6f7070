"""What a diagnosis from data is asked for."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import Spec
from sizetransfer.verdict import VerdictSpec

RADII = (1, 2, 4, 8)


class DataQuestion(Spec):
    """The question: sizes, radii, noise levels, training steps and thresholds.

    Attributes:
        sizes: sizes that the model shall run on, beside those of the data; ``None``: those of the data, and twice the
            training size where there is one alone.
        radii: receptive radii that are judged; ``None``: 1, 2, 4 and 8, up to half of the training lattice.
        sigmas: noise levels, in units of the field; ``None``: .1, .25, .5, 1, 2 and 5 times the site deviation.
        sigma_min: noise level at which reverse diffusion stops; ``None``: .05 of the site deviation.
        train: train small networks of growing radius with so many steps; ``None``: none is trained.
        fields: at most so many fields of each size, evenly spread over them; ``None``: all.
        error: standard error of the score's relative error that is asked for; too few fields for it are refused.
        seed: names the random streams of training and generation.
        verdict: thresholds of the verdict.
    """

    sizes: tuple[int, ...] | None = Field(None, min_length=1)
    radii: tuple[int, ...] | None = Field(None, min_length=1)
    sigmas: tuple[float, ...] | None = Field(None, min_length=1)
    sigma_min: float | None = Field(None, gt=0, allow_inf_nan=False)
    train: int | None = Field(None, ge=1)
    fields: int | None = Field(None, ge=1)
    error: float | None = Field(None, gt=0, lt=1)
    seed: int = Field(0, ge=0)
    verdict: VerdictSpec = VerdictSpec()

    @field_validator("sizes", "radii", "sigmas")
    @classmethod
    def _ascending(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if values is None else tuple(sorted(set(values)))

    @model_validator(mode="after")
    def _positive(self) -> DataQuestion:
        wrong = [
            *(("sigmas", one) for one in self.sigmas or () if not 0 < one < float("inf")),
            *(("radii", one) for one in self.radii or () if one < 0),
            *(("sizes", one) for one in self.sizes or () if one < 2),
        ]
        if wrong:
            name, value = wrong[0]
            raise SpecError(
                "A number is out of range.",
                where=f"diagnose, {name}",
                expected="noise levels above zero, radii from zero on, sizes from two on",
                got=repr(value),
                fix="give numbers such as --sigma 0.5,1 --radius 2,4 --size 64",
            )
        return self

    def sizes_for(self, stored: tuple[int, ...], period: int) -> tuple[int, ...]:
        """Sizes of the data and those asked for; the smallest of the data is that of training.

        Raises:
            SpecError: a size that is below the training size, or cuts a cell of sublattices.
        """
        training = stored[0]
        asked = self.sizes or ((2 * training,) if len(stored) == 1 else ())
        wrong = [size for size in asked if size < training or size % period]
        if wrong:
            raise SpecError(
                "A size contradicts the data.",
                where="diagnose, sizes",
                expected=f"multiples of {period} from the smallest size of the data on, {training}",
                got=str(wrong[0]),
                fix="ask for larger lattices: the smallest fields are what the model is trained on",
            )
        return tuple(sorted({*stored, *asked}))

    def levels(self, deviation: float) -> tuple[float, ...]:
        """Noise levels, for fields of this site deviation."""
        return self.sigmas or tuple(float(f"{share * deviation:.2g}") for share in (0.1, 0.25, 0.5, 1, 2, 5))
