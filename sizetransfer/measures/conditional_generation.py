r"""Generated fields against exact ones in the same context, class by class of sites and of pairs of sites.

Where a field is drawn *given* discrete labels, as the hard-valid teacher's X given ports S and types M, the reverse
process is run in the context of exact fields, and a statistic over all sites would hide what the labels do. A teacher
that knows which sites are alike (:class:`~sizetransfer.contracts.oracle.HasSiteClasses`) is therefore compared class by
class, k, with E over the fields and over the sites, or pairs, of the class:

- ``mean`` :math:`\mu_k = E_k x`, ``variance`` :math:`v_k = E_k(x-\mu_k)^2`, ``fourth_moment`` :math:`E_k(x-\mu_k)^4`,
  for each class of sites of each division (by type, say);
- ``covariance`` :math:`E_k\,x_i x_j - \mu_k^2` for each class of pairs, with mean and variance over both ends.

Generated, exact and control fields live in one set of contexts: the control's are drawn anew given the labels
(:class:`~sizetransfer.contracts.oracle.HasConditionalSamples`), so that what the labels vary by is in no difference.
Deviations are in units of the exact field of the class: :math:`\sqrt{v_k}` for the mean, :math:`v_k` for variance and
covariance (so that this is a correlation), the fourth moment for the fourth moment. Noise, starts and jackknife are
those of :mod:`sizetransfer.measures.generation`, and so are the ratios of second moments, over all sites, and the
control: the best known score in the student's place. It sees no labels, so that it may do worse than the student.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.oracle import (
    Division,
    HasConditionalSamples,
    HasSiteClasses,
    Sample,
    Teacher,
    draw_fields,
    redraw_fields,
)
from sizetransfer.contracts.parts import Part
from sizetransfer.contracts.randomness import Stream, batches
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.student import Student
from sizetransfer.measures.exact_law import ControlScore, ExactLaw
from sizetransfer.measures.generated_parts import BY_CLASS_PARTS, REVERSE_PROCESS_PARTS
from sizetransfer.measures.generation import (
    Beginning,
    ReverseProcessSpec,
    averages,
    controlled,
    generated_fields,
    moment_ratios,
    noisy,
    within,
)
from sizetransfer.measures.marginal_ratios import plain
from sizetransfer.numerics.statistics import jackknifed
from sizetransfer.scores.sampling import Score

OF_SITES = ("mean", "variance", "fourth_moment")
OF_PAIRS = ("covariance",)
PAIRS = "pairs"
"""The name under which the classes of pairs are recorded, beside the names of the divisions of the sites."""
# A class is compared if so many fields show it: whichever field is left out, two do.
FEWEST = 3


class ConditionalGenerationSpec(ReverseProcessSpec):
    """Local observables of generated fields by class of sites, against exact fields with the same labels.

    Parts: ``D_mae`` for every division D of the sites and for ``pairs``, the mean absolute deviation over its classes
    and their observables (and channels), in units of the exact field; ``observable_mae``, the mean of these; and
    ``D_mae_control``, ``observable_mae_control`` for other exact fields with the same labels. Profiles over the classes
    k of a division, at the index of the class: ``D/k/o/generated`` and ``D/k/o/exact`` in units of the field for o in
    ``mean, variance, fourth_moment`` (of pairs: ``covariance``), ``D/k/o/deviation`` and ``D/k/o/control`` in units of
    the exact field, and ``D/k/count``, sites or pairs in all fields. A class that fewer than three fields show is
    counted only. Errors are jackknife errors over fields. ``sigma_start``, ``sigma_needed`` and ``start_exact`` say
    where the reverse process starts; ``site_variance_ratio``, ``nearest_covariance_ratio`` and, with ``control_``
    before their names, those of the control, with ``control_exact``, are as for
    :class:`~sizetransfer.measures.generation.GenerationSpec`.
    """

    kind: Literal["conditional-generation"] = "conditional-generation"
    requires: ClassVar[tuple[type, ...]] = (HasConditionalSamples, HasSiteClasses)
    figures: ClassVar[tuple[str, ...]] = ("conditional-generation", "generation")
    parts: ClassVar[Mapping[str, Part]] = {**BY_CLASS_PARTS, **REVERSE_PROCESS_PARTS}
    fields: int = Field(64, ge=FEWEST, description="generated fields, and as many exact ones")

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`.

        Raises:
            OracleError: the teacher is not defined at that size.
            SpecError: a global student is to be tiled.
            NonFiniteError: the reverse process leaves the finite numbers; it names the step.
        """
        law = ExactLaw(teacher, size, seed=seed, batch=self.batch)
        begin = self.beginning(law.needed, student.field.sigma_data)
        yield from begin.measurements(self.fields)
        score = within(self.score(student), self.trained)
        if law.control is not None:
            yield plain("control_exact", float(law.control.exact), self.fields)
        parts: list[Mapping[_Class, Tensor]] = []
        moments: list[Tensor] = []
        for batch, generator in batches(self.fields, self.batch, seed, "conditional generation", size):
            sets = self._sets(teacher, score, law.control, begin, batch, size, generator)
            parts.append(_sums(cast(HasSiteClasses, teacher), sets[:3]))
            moments.append(torch.stack([averages(fields) for fields in sets], 1))
        yield from _compare({one: torch.cat([part[one] for part in parts]) for one in parts[0]})
        all_moments = torch.cat(moments)
        if not all_moments[:, 1].isnan().all():  # boxes without occupied sites have no moments
            yield from moment_ratios(all_moments, law, begin.sampler.noise.sigma_min**2)

    def _sets(
        self,
        teacher: Teacher,
        score: Score,
        control: ControlScore | None,
        begin: Beginning,
        batch: int,
        size: int,
        generator: Stream,
    ) -> tuple[Sample, ...]:
        """Generated, exact, other exact fields, and the control's, all with the labels of the exact ones."""
        exact = draw_fields(teacher, batch, size, generator=generator)
        other = redraw_fields(cast(HasConditionalSamples, teacher), exact, generator=generator)
        clean = exact
        if begin.apart:
            clean = redraw_fields(cast(HasConditionalSamples, teacher), exact, generator=generator.branch("start"))
        own = generator.branch("generated")
        x = generated_fields(score, clean, begin, own.fields(0, batch))
        last = begin.sampler.noise.sigma_min
        sets = exact.with_x(x), noisy(exact, last, generator), noisy(other, last, generator)
        if control is None:
            return sets
        return *sets, exact.with_x(controlled(control, clean, begin, own.fields(0, batch)))


# --- sums over the members of a class ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Class:
    """A class of sites or of pairs: where it is recorded."""

    division: str
    name: str
    index: int

    @property
    def observables(self) -> tuple[str, ...]:
        return OF_PAIRS if self.division == PAIRS else OF_SITES


def _sums(teacher: HasSiteClasses, sets: Sequence[Sample]) -> dict[_Class, Float[Tensor, "batch sets channels sums"]]:
    """What the observables of every class are made from, field by field; the first sum counts the members."""
    classes = teacher.site_classes(sets[0])
    fields = [sample.x.double().flatten(2) for sample in sets]
    found: dict[_Class, Tensor] = {}
    for division, sites in classes.sites.items():
        powers = torch.stack([_powers(x, sites) for x in fields], 1)
        found |= {_Class(division, name, index): powers[..., index, :] for index, name in enumerate(sites.names)}
    for index, (name, pairs) in enumerate(classes.pairs.items()):
        found[_Class(PAIRS, name, index)] = torch.stack([_products(x, pairs) for x in fields], 1)
    return found


def _powers(x: Float[Tensor, "batch channels sites"], sites: Division) -> Float[Tensor, "batch channels classes 5"]:
    """Sums of the powers 0 to 4 of the field over the sites of each class."""
    members = F.one_hot(sites.labels.flatten(1) + 1, len(sites.names) + 1)[..., 1:].to(x)
    return torch.stack([torch.einsum("bnk,bcn->bck", members, x**power) for power in range(5)], -1)


def _products(x: Float[Tensor, "batch channels sites"], pairs: Tensor) -> Float[Tensor, "batch channels 4"]:
    """Sums over pairs of one, of the mean and the mean square of the two ends, and of their product."""
    row, here, there = pairs
    first, second = x[row, :, here], x[row, :, there]
    values = [torch.ones_like(first), (first + second) / 2, (first**2 + second**2) / 2, first * second]
    return x.new_zeros(*x.shape[:2], 4).index_add(0, row, torch.stack(values, -1))


# --- observables and their differences --------------------------------------------------------------------------------


def _compare(sums: Mapping[_Class, Float[Tensor, "n 3 channels sums"]]) -> Iterator[Measurement]:
    """Measurements of all classes; the second axis of the sums holds generated, exact and other exact fields."""
    divisions: dict[str, list[Tensor]] = {}
    for one, own in sums.items():
        counts = own[:, 0, 0, 0]
        total = int(counts.sum())
        yield Measurement(f"{one.division}/{one.name}/count", total, 0.0, len(own), float(one.index))
        if int((counts > 0).sum()) >= FEWEST:
            values, units = _observables(torch.cat([own.sum(0, keepdim=True), own.sum(0) - own]))
            deviations = (values - values[:, 1:2]) / units
            divisions.setdefault(one.division, []).append(deviations[:, [0, 2]].abs().mean(2))
            yield from _profile(one, values.mean(2), deviations.mean(2))
    errors = {name: torch.cat(list(all_of), -1).mean(-1) for name, all_of in divisions.items()}
    if errors:
        errors["observable"] = torch.stack(list(errors.values())).mean(0)
    for name, estimates in errors.items():
        yield Measurement.of(f"{name}_mae", jackknifed(estimates[:, 0]))
        yield Measurement.of(f"{name}_mae_control", jackknifed(estimates[:, 1]))


def _observables(sums: Float[Tensor, "rows sets channels sums"]) -> tuple[Tensor, Tensor]:
    """The observables, ``rows sets channels observables``, and their units in the exact field, with one set."""
    mean, square, *rest = (sums[..., 1:] / sums[..., :1]).unbind(-1)
    variance = square - mean**2
    exact = variance[:, 1:2]
    if len(rest) == 1:
        return (rest[0] - mean**2)[..., None], exact[..., None]
    fourth = rest[1] - 4 * mean * rest[0] + 6 * mean**2 * square - 3 * mean**4
    units = torch.stack([exact.sqrt(), exact, fourth[:, 1:2]], -1)
    return torch.stack([mean, variance, fourth], -1), units


def _profile(one: _Class, values: Tensor, deviations: Tensor) -> Iterator[Measurement]:
    """The numbers of one class, from estimates ``rows sets observables``."""
    for index, observable in enumerate(one.observables):
        columns = {
            "generated": values[:, 0, index],
            "exact": values[:, 1, index],
            "deviation": deviations[:, 0, index],
            "control": deviations[:, 2, index],
        }
        for part, estimates in columns.items():
            yield Measurement.of(
                f"{one.division}/{one.name}/{observable}/{part}", jackknifed(estimates), float(one.index)
            )
