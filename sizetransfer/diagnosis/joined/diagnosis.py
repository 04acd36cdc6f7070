"""The steps of a diagnosis of one model on data, cheapest first, and where they stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Sample
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.stored import StoredFields
from sizetransfer.contracts.student import Student
from sizetransfer.diagnosis.from_data.diagnosis import DataDiagnosis, diagnosed
from sizetransfer.diagnosis.from_data.evidence import Known, consequence_of, law_of, with_remedies
from sizetransfer.diagnosis.from_data.question import DataQuestion
from sizetransfer.diagnosis.from_data.steps import Step, StepLog
from sizetransfer.diagnosis.from_data.tables import require_fields
from sizetransfer.diagnosis.joined.losses import LevelLosses, errors, references, sample_of
from sizetransfer.diagnosis.model.findings import RADII, ModelLevel, level_of, losses_by_level
from sizetransfer.diagnosis.model.losses import NoisyFields
from sizetransfer.diagnosis.model.units import UnitReport, check_units
from sizetransfer.scores.receptive import RadiusReport, measure_radius
from sizetransfer.verdict import CellEvidence, TrainingEvidence, Verdict, describe, judge

WRONG_UNITS = "wrong units"
"""The word where the model is read by conventions that are not its own: nothing else is claimed."""

CHECKED, JUDGED = 64, 256
"""Fields that units are checked on, and that losses of each size are means over; filters are fitted to all."""


SHARES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Noise levels in units of the site deviation, where none are asked for."""


@dataclass(frozen=True)
class SizeLosses:
    """The model beside linear filters at one size.

    Attributes:
        size: sites along each axis.
        fields: that the filters were fitted to.
        judged: of these, those that losses are means over.
        levels: by noise level.
    """

    size: int
    fields: int
    judged: int
    levels: tuple[ModelLevel, ...]


@dataclass(frozen=True, eq=False)
class ModelOnData:
    """All that was found of one model on some data.

    Attributes:
        model: what it is called.
        data: what the data alone say; the radius that is judged there is the model's, where it is not global.
        radius: the measured receptive radius.
        units: whether the model is read in its own units; none where it could not be asked.
        sizes: its losses at every size there is, as far as the diagnosis went.
        verdict: of this model; none where its units are wrong or it could not be asked.
        notes: what is known of its making.
        steps: what it took, in their order.
        problems: what was asked for and could not be given.
    """

    model: str
    data: DataDiagnosis
    radius: RadiusReport
    units: UnitReport | None
    sizes: tuple[SizeLosses, ...]
    verdict: Verdict | None
    notes: tuple[str, ...]
    steps: tuple[Step, ...]
    problems: tuple[str, ...]

    @property
    def word(self) -> str:
        """The verdict's word, or that the units are wrong."""
        if self.units is not None and self.units.findings:
            return WRONG_UNITS
        return "undecided" if self.verdict is None else self.verdict.word

    @property
    def label(self) -> str:
        """The word with its qualifiers."""
        return self.word if self.verdict is None else self.verdict.label

    @property
    def missing(self) -> tuple[str, ...]:
        """What this diagnosis does not know."""
        from sizetransfer.diagnosis.joined.advice import missing

        return tuple(missing(self))

    @property
    def would_change(self) -> tuple[str, ...]:
        """What would change the word; never empty."""
        from sizetransfer.diagnosis.joined.advice import would_change

        return tuple(would_change(self))

    @property
    def rule(self) -> str:
        """The rule of the verdict in words."""
        return describe(self.data.question.verdict)

    def text(self, *, tables: bool = False, explain: bool = False) -> str:
        """What the console shows; arguments as for :meth:`DataDiagnosis.text`."""
        from sizetransfer.diagnosis.joined.text import text_of

        return text_of(self, tables=tables, explain=explain)

    def __str__(self) -> str:
        return self.text()

    def to_json(self) -> dict[str, Any]:
        """The same as data for JSON; null for a number that is not finite."""
        from sizetransfer.diagnosis.joined.text import json_of

        return json_of(self)


Build = Callable[[FieldInfo], Student]


def diagnose_model_on_data(
    build: Build,
    stored: StoredFields,
    question: DataQuestion | None = None,
    *,
    model: str = "model",
    name: str = "data",
) -> ModelOnData:
    """Judge one model on stored fields: its radius, its units, and its loss at every size. Nothing is trained.

    Args:
        build: makes the model for fields like these.
        stored: independent fields; the smallest size is taken for that of training.
        question: sizes, noise levels, seed and thresholds; with radii, filters of these are judged too.
        model, name: what model and data are called.

    Raises:
        SpecError: data that cannot be diagnosed, crops, a model that cannot be built or runs on no size.
        ConformanceError: the module fails.
    """
    question = question or DataQuestion()
    require_fields(stored, stored.sizes()[0])
    if stored.boundary == "crop" or question.train is not None:
        raise _refused(stored, question)
    return _Steps(build, stored, question, model, name).run()


def _refused(stored: StoredFields, question: DataQuestion) -> SpecError:
    if question.train is not None:
        return SpecError(
            "A model that is given is not trained.",
            where="diagnose, train",
            expected="a model, or train",
            got=f"a model and {question.train} steps",
            fix="leave one of them out",
        )
    return SpecError(
        "Losses of a model are not taken on crops.",
        where="diagnose, boundary",
        expected="periodic fields, or boxes with walls",
        got=stored.boundary,
        fix="diagnose the data without the model; run the model on whole fields",
    )


class _Steps:
    """The steps in their order; arguments as for :func:`diagnose_model_on_data`."""

    def __init__(self, build: Build, stored: StoredFields, question: DataQuestion, model: str, name: str) -> None:
        self.stored, self.question, self.model, self.name = stored, question, model, name
        self.training = stored.sizes()[0]
        self.log = StepLog()
        with self.log.step("model and fields", self.stored.count(self.training)):
            plain = FieldInfo(dim=stored.dim, channels=stored.channels, periodic=stored.boundary == "periodic")
            sample = sample_of(stored, self.training, plain)
            deviation = float(sample.x.double().std())
            self.field = plain.model_copy(update={"sigma_data": deviation if deviation > 0 else 1.0})
            self.sample = sample
            self.student = build(self.field).eval()

    def run(self) -> ModelOnData:
        """All of them, as far as the answer is open."""
        with self.log.step("receptive radius", 2):
            radius = self._radius()
        asked = self.question if radius.radius is None else self._of_radius(radius.radius)
        data, known = diagnosed(self.stored, asked, self.name)
        self.log.steps += data.steps
        units = self._checked(known)
        sizes: list[SizeLosses] = []
        verdict: Verdict | None = None
        if units is not None and not units.findings:
            sizes, verdict = self._judged(units, radius.radius, known)
        return ModelOnData(
            model=self.model,
            data=data,
            radius=radius,
            units=units,
            sizes=tuple(sizes),
            verdict=verdict,
            notes=tuple(getattr(self.student, "notes", ())),
            steps=tuple(self.log.steps),
            problems=tuple(dict.fromkeys([*data.problems, *self.log.problems])),
        )

    def _checked(self, known: Known) -> UnitReport | None:
        """The units; none where the model cannot be asked."""
        sigmas = self.question.sigmas or [float(f"{share * known.deviation:.2g}") for share in SHARES]
        found: list[UnitReport] = []
        with self.log.step("units", self.stored.count(self.training), needed=False):
            found.append(check_units(self.student, self.sample, sigmas, judged=CHECKED, seed=self.question.seed))
        return found[0] if found else None

    def _radius(self) -> RadiusReport:
        low, high = getattr(self.student, "sigma_range", None) or (0.0, float("inf"))
        levels = [min(max(share * self.field.sigma_data, low), high) for share in (0.2, 5.0)]
        return measure_radius(self.student, sigmas=levels, name=self.model, seed=self.question.seed)

    def _of_radius(self, radius: int) -> DataQuestion:
        radii = tuple(sorted({radius, *(self.question.radii or ())}))
        return self.question.model_copy(update={"radii": radii})

    def _judged(self, units: UnitReport, radius: int | None, known: Known) -> tuple[list[SizeLosses], Verdict | None]:
        """Losses at the training size; at larger ones only if the model has learned."""
        found: dict[int, tuple[SizeLosses, Mapping[float, LevelLosses]]] = {}
        verdict = None
        for size in self.stored.sizes():
            with self.log.step(f"losses at L = {size}", self.stored.count(size), needed=False):
                found[size] = self._losses(units, radius, size)
            if self.training not in found:
                break
            cell = _cell(self.model, radius, known, {one: raw for one, (_, raw) in found.items()})
            verdict = with_remedies(judge(cell, self.question.verdict), known)
            if verdict.word == "not learned":
                break
        return [shown for shown, _ in found.values()], verdict

    def _losses(
        self, units: UnitReport, radius: int | None, size: int
    ) -> tuple[SizeLosses, Mapping[float, LevelLosses]]:
        sample = self.sample if size == self.training else sample_of(self.stored, size, self.field)
        judged, levels = min(JUDGED, len(sample.x)), [level.sigma for level in units.levels]
        radii = sorted({*RADII, *([] if radius is None else [radius])})
        fields = NoisyFields(_spread(sample, judged), self.question.seed)
        own = losses_by_level(self.student, fields, judged, radii, levels)
        tolerance = self.question.verdict.locality
        shown = tuple(level_of(sigma, *pair, radius, tolerance) for sigma, pair in own.items())
        raw = {sigma: LevelLosses(*pair, radius) for sigma, pair in own.items()}
        return SizeLosses(size, len(sample.x), judged, shown), raw


def _spread(sample: Sample, judged: int) -> Sample:
    """The same fields, with those that are judged, evenly spread, before the others."""
    count = len(sample.x)
    first = [place * count // judged for place in range(judged)]
    rest = sorted(set(range(count)) - set(first))
    return sample.with_x(sample.x[torch.tensor(first + rest)])


def _cell(
    name: str, radius: int | None, known: Known, found: Mapping[int, Mapping[float, LevelLosses]]
) -> CellEvidence:
    """What the verdict on the model rests on: its own errors, and the forecast of the filter of its radius."""
    training = found[known.training]
    fits = radius is not None and 2 * radius + 1 <= known.training
    larger = [size for size in known.laws if size > known.training and known.judges(size)] if fits else []
    made = {best: [known.made(radius or 0, size, best=best) for size in larger] for best in (False, True)}
    return CellEvidence(
        teacher=known.name,
        student=name,
        radius=radius,
        training_size=known.training,
        sizes=known.sizes,
        trainings=(
            TrainingEvidence(
                0,
                tuple(error for size, levels in found.items() for error in errors(levels, training, size)),
                tuple(references(training, known.training)),
                (),
                tuple(map(consequence_of, made[False])),
            ),
        ),
        site_deviation=known.deviation,
        best_of_radius=tuple(map(consequence_of, made[True])),
        law=tuple(law_of(one) for one in known.changes if one.measured),
        correlation_squared=known.correlation_squared,
    )
