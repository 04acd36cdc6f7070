"""Second moments of the fields of a torus, without each part of them: what forecasts to second order rest on.

They depend on the teacher and on the names of the fields alone, so that all trainings share them: equal questions are
answered once in a process.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field, replace

import torch

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.oracle import HasCovariance, HasScore, Sample, Teacher, draw_fields
from sizetransfer.contracts.randomness import stream
from sizetransfer.scores.references import Sight, estimate_moments, exact_moments
from sizetransfer.scores.references.errors import others
from sizetransfer.scores.references.moments import TorusMoments

EVERYTHING = Sight()


@dataclass(frozen=True)
class LawQuestion:
    """Which law, and from which fields.

    Attributes:
        fingerprint: names the teacher, see :func:`fingerprint`.
        size: of the torus.
        fields: how many, unless the moments are known.
        folds: parts of the fields that are left out in turn.
        seed: names the fields.
        sight: which conditions tell sites apart.
        teacher: who draws them.
    """

    fingerprint: str
    size: int
    fields: int
    folds: int
    seed: int
    sight: Sight
    teacher: Teacher = field(compare=False)

    @property
    def torus(self) -> bool:
        """Whether the fields live on a torus."""
        domain = self.teacher.domain(self.size)
        return isinstance(domain, Lattice) and all(domain.closed_axes)

    @property
    def exact(self) -> bool:
        """Whether the moments are known."""
        return self.torus and isinstance(self.teacher, HasCovariance)

    def at(self, size: int) -> LawQuestion:
        """The same at another size."""
        return self if size == self.size else replace(self, size=size, fingerprint=fingerprint(self.teacher, size))

    def draw(self) -> Sample:
        """The fields."""
        with torch.no_grad():
            generator = stream(self.seed, "linear references", self.size)
            return draw_fields(self.teacher, self.fields, self.size, generator=generator)


def fingerprint(teacher: Teacher, size: int) -> str:
    """Names a teacher by what it answers: fields of one stream, and their scores."""
    with torch.no_grad():
        sample = draw_fields(teacher, 2, size, generator=stream("linear references", "fingerprint", size))
    parts = [sample.x, sample.context.mask, sample.context.condition]
    if isinstance(teacher, HasScore):
        parts.append(teacher.score(sample).detach())
    if isinstance(teacher, HasCovariance):
        parts.append(teacher.covariance(size, torch.arange(2)))
    found = hashlib.sha256(f"{type(teacher).__qualname__} {teacher.field!r} {sample.x.device}".encode())
    for part in parts:
        found.update(b"" if part is None else part.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()


@functools.lru_cache(maxsize=16)
def periodic_moments(question: LawQuestion) -> tuple[TorusMoments, ...]:
    """Second moments, exact or without each part of the fields; none on no torus, or where classes do not alternate."""
    if not question.torus:
        return ()
    if question.exact:
        found = [exact_moments(question.teacher, question.size)]
    else:
        sample, folds = question.draw(), question.folds
        if not alternates(sample, question.sight):
            return ()
        found = [estimate_moments(others(sample, fold, folds), 0, sight=question.sight) for fold in range(folds)]
    kept = tuple(one for one in found if isinstance(one, TorusMoments) and one.alternate)
    return kept if len(kept) == len(found) else ()


def alternates(sample: Sample, sight: Sight = EVERYTHING) -> bool:
    """Whether the sites of these fields of a torus are alike, or of classes that alternate in the same cells in all."""
    condition = sample.context.condition
    if sight.condition and condition is not None and not bool((condition == condition[:1]).all()):
        return False
    found = estimate_moments(sample, 0, sight=sight)
    return isinstance(found, TorusMoments) and found.alternate
