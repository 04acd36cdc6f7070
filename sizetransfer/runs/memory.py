r"""Whether the fields of one batch fit into memory, estimated before anything is trained.

The most bytes that tensors hold at one moment, for one field of N sites, are taken to be a power law
:math:`m(N) = m_2 (N/N_2)^p` with :math:`p = \log(m_2/m_1)/\log(N_2/N_1)`, where :math:`m_1, m_2` are counted at two
small sizes: for the teacher's sample and the scores that the measure asks for, and for the student's score. A
convolution has p = 1, attention between all pairs of sites p = 2. A measure holds as many fields as its ``batch``, or
its ``fields`` where it has no such bound. What libraries use inside one operation is not seen, so this is a lower
estimate, good for a factor of two; only what is beyond the whole memory is refused.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Context, HasScore, HasSmoothedScore, Sample, Teacher
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import FieldInfo, MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.runs.trials import Trial

MANY_SITES = 2**16
"""Sizes up to so many sites are not looked at: they fit, and ordinary runs pay nothing."""

PROBED_SITES = 2**12
"""Most sites of the two sizes at which bytes are counted."""

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Growth:
    """Bytes of one field as a power law of its sites.

    Attributes:
        sites: of the larger size that was looked at.
        bytes: counted there.
        power: of the sites.
    """

    sites: int
    bytes: int
    power: float

    def at(self, sites: int) -> float:
        """Bytes of a field of so many sites."""
        return float(self.bytes * (sites / self.sites) ** self.power)


def check_memory(
    trial: Trial, teacher: Teacher, student: Student, measures: Iterable[str], *, available: int | None
) -> None:
    """Refuse a measure at a size at which one batch is beyond the whole memory.

    Args:
        trial: with the sizes of its evaluation.
        teacher, student: as the trial builds them, on a processor.
        measures: names of those that can be taken.
        available: bytes there are; unknown: nothing is refused.

    Raises:
        SpecError: with the estimate, and how to come out with less.
    """
    known: dict[object, Growth | None] = {}
    for name in measures:
        for size in trial.evaluation.sizes_of(name):
            if available is None or _sites(student.field, size) <= MANY_SITES:
                continue
            estimate = _estimate(trial, teacher, student, name, size, known)
            if estimate > available:
                raise _too_large(trial, name, size, estimate, available)


def available_memory(device: str) -> int | None:
    """Bytes of memory: of the machine, or less where a control group allows less; of an accelerator what is free."""
    kind = torch.device(device).type
    if kind == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_limits(), default=None) if kind == "cpu" else None


def peak_bytes(work: Callable[[], object], modules: Iterable[nn.Module] = ()) -> int:
    """The most bytes that tensors hold at one moment while ``work`` is done, without those of the modules.

    Example:
        >>> peak_bytes(lambda: torch.zeros(1000, dtype=torch.float64) + 1)
        16000
    """
    live = _Live(modules)
    with live:
        work()
    return live.peak


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that operations make, until they are freed."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.peak = 0, 0
        held = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        self._known: dict[int, object] = {tensor.untyped_storage()._cdata: None for tensor in held}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def freed(_: object) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def _estimate(
    trial: Trial, teacher: Teacher, student: Student, name: str, size: int, known: dict[object, Growth | None]
) -> float:
    """Bytes of a batch of the measure; zero where it cannot be told."""
    measure, sites = trial.evaluation.measures[name], _sites(student.field, size)
    one = 0.0
    for key, work in _works(trial, teacher, student, measure).items():
        if key not in known:
            known[key] = _growth(work, trial.training.size, teacher, student)
        growth = known[key]
        one = max(one, growth.at(sites) if growth is not None else 0.0)
    return one * _at_a_time(measure)


def _works(
    trial: Trial, teacher: Teacher, student: Student, measure: MeasureSpec
) -> dict[object, Callable[[int], object]]:
    """What a measure does with one field of a size, by what tells it from what other measures do."""

    def draw(size: int) -> Sample:
        return teacher.sample(1, size, generator=stream("preflight", "memory"))

    def clean(size: int) -> object:
        return teacher.score(draw(size)) if isinstance(teacher, HasScore) else None

    def noisy(size: int) -> object:
        x, level, context = _asked(draw(size), trial.sigma)
        return teacher.smoothed_score(x, level, context) if isinstance(teacher, HasSmoothedScore) else None

    def answer(size: int) -> object:
        with nullcontext() if measure.differentiates else torch.no_grad():
            return student(*_asked(draw(size), trial.sigma))

    works: dict[object, Callable[[int], object]] = {"sample": draw}
    works |= {one: work for one, work in ((HasScore, clean), (HasSmoothedScore, noisy)) if one in measure.requires}
    if getattr(measure, "tile", None) is None:  # on tiles, the student sees no whole field
        works["student", measure.differentiates] = answer
    return works


def _asked(sample: Sample, sigma: float) -> tuple[Tensor, Tensor, Context]:
    return sample.x, sample.x.new_full((len(sample.x),), sigma), sample.context


def _growth(work: Callable[[int], object], size: int, teacher: Teacher, student: Student) -> Growth | None:
    """The power law of what ``work`` holds at two sizes; nothing where it does not bear to be looked at."""
    small, large = _probed(size, student.field)
    counts, sites = [], [_sites(student.field, one) for one in (small, large)]
    try:
        counts = [peak_bytes(lambda one=one: work(one), (teacher, student)) for one in (small, large)]  # type: ignore[misc]
    except (Exception, SystemExit):  # a plugin may raise anything; the run itself will say what
        return None
    if min(counts) <= 0 or sites[0] == sites[1]:
        return None
    return Growth(sites[1], counts[1], math.log(counts[1] / counts[0]) / math.log(sites[1] / sites[0]))


def _probed(size: int, field: FieldInfo) -> tuple[int, int]:
    """Two sizes with few sites, one twice the other: the training size times powers of two, which suits strides."""
    large = size
    while _sites(field, large) > PROBED_SITES and large > 2:
        large //= 2
    while _sites(field, 2 * large) <= PROBED_SITES:
        large *= 2
    return large // 2, large


def _at_a_time(measure: MeasureSpec) -> int:
    """Fields that the measure holds at once."""
    bounds = [getattr(measure, name, None) for name in ("batch", "fields")]
    return min((bound for bound in bounds if isinstance(bound, int)), default=1)


def _sites(field: FieldInfo, size: int) -> int:
    return int(size**field.dim) if field.geometry == "lattice" else size


def _limits() -> Iterator[int]:
    with suppress(ValueError, OSError, AttributeError):  # not every system tells
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _limit_files():
        with suppress(ValueError, OSError):  # no such file, or "max"
            yield int(file.read_text())


def _limit_files() -> Iterator[Path]:
    """Where the control groups that this process is in say how much memory they allow."""
    yield _CGROUPS / "memory" / "memory.limit_in_bytes"
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            group = _CGROUPS / line.rpartition(":")[2].lstrip("/")
            yield from (place / "memory.max" for place in (group, *group.parents) if place.is_relative_to(_CGROUPS))


def _too_large(trial: Trial, name: str, size: int, estimate: float, available: int) -> SpecError:
    measure = trial.evaluation.measures[name]
    fields = _at_a_time(measure)
    ways = [f"lower its {'batch' if hasattr(measure, 'batch') else 'fields'}"] if fields > 1 else []
    ways += ["set its tile"] if hasattr(measure, "tile") else []
    others = [one for one in trial.evaluation.sizes_of(name) if one != size]
    return SpecError(
        f"The measure {name!r} does not fit into memory at size {size}.",
        where=f"evaluation.measures.{name} of {trial.label}, size {size}",
        expected=f"at most {_gibibytes(available)}, all that there is",
        got=f"about {_gibibytes(estimate)} for {fields} field{'s' if fields > 1 else ''} at a time",
        fix=", or ".join([*ways, f"leave the size out: evaluation.restrict: {{{name}: {others}}}"]),
    )


def _gibibytes(count: float) -> str:
    return f"{count / 2**30:.3g} GiB"
