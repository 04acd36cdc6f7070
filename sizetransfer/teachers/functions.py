r"""Teachers made of anybody's functions: a score, a log-density, a sampler, in Python or by their import paths.

A function is called with arrays of shape ``(batch, channels, *size)`` and may be written with torch or with numpy:
which of the two it takes is found by asking it once. The teacher has exactly the capabilities whose functions were
given. numpy functions have no derivatives; where one is asked for, it is taken by five-point differences, to ten digits
or so, in double precision.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sizetransfer.contracts.domain import Site
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, Exactness, Sample, Teacher
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.contracts.specs import FieldInfo

Function = Callable[..., Any]
Library = Literal["torch", "numpy"]

STEP = 1e-3
"""Step of five-point differences in units of the field's scale."""
_PROBES = 2
_RANDOMNESS = ("generator", "seed", "rng")


class Answers(nn.Module):
    """What of a teacher asks functions: the base of those that get capabilities from :func:`with_capabilities`.

    Attributes:
        functions: by the name of what they answer.
        libraries: which library each function takes arrays of.
    """

    field: FieldInfo
    functions: dict[str, Function]
    libraries: dict[str, Library]

    def ask(self, name: str, x: Tensor, *arguments: Any, shape: tuple[int, ...]) -> Tensor:
        """The answer of a function about fields ``x``, like ``x``, differentiable by ``x``.

        Args:
            name: of the function.
            x: ``(B, C, *S)``.
            arguments: others; tensors are handed over as arrays where the function takes these.
            shape: of the answer.

        Raises:
            OracleError: the function fails, or its answer has another shape, is no array of real numbers or not finite.
        """
        if name not in self.libraries:
            self.libraries[name] = _library(name, self.functions[name], x, arguments)
        if self.libraries[name] == "torch":
            return _tensor(name, _call(name, self.functions[name], x, *arguments), shape, x)

        def by_array(point: Tensor) -> Tensor:
            given = [a.detach().cpu().numpy() if isinstance(a, Tensor) else a for a in (point, *arguments)]
            rows = (len(point), *shape[1:])
            return _tensor(name, _call(name, self.functions[name], *given), rows, point)

        if not (torch.is_grad_enabled() and x.requires_grad):
            return by_array(x)
        answer: Tensor = _ByDifferences.apply(x, by_array, STEP * self.field.sigma_data)  # type: ignore[no-untyped-call]
        return answer

    def noisy(self, name: str, x: Tensor, sigma: Tensor, *arguments: Any, shape: tuple[int, ...]) -> Tensor:
        """The answer of a function of noisy fields and their noise levels ``(B,)``.

        Raises:
            OracleError: a noise level that is not positive, or see :meth:`ask`.
        """
        if not bool((sigma > 0).all()):
            raise OracleError(
                "A noise level is not positive.",
                where=f"{name}(x, sigma)",
                expected="sigma > 0",
                got=repr(sigma.tolist()),
                fix="ask for the clean score where there is no noise",
            )
        return self.ask(name, x, sigma, *arguments, shape=shape)


class FunctionTeacher(Answers, Teacher):
    """A teacher made of functions; :func:`oracle_from_functions` builds it with the capabilities that it has.

    Attributes:
        draws_its_law: whether ``sample`` draws from the law itself; otherwise it gives points to test on.
    """

    draws_its_law: bool

    def __init__(
        self, field: FieldInfo, functions: Mapping[str, Function], sizes: Sequence[int] | None, scale: float
    ) -> None:
        super().__init__(field)
        self.functions, self.libraries = dict(functions), {}
        self.draws_its_law = "sample" in functions
        self._sizes = None if sizes is None else tuple(sizes)
        self._scale = scale

    def check_size(self, size: int) -> None:
        super().check_size(size)
        if self._sizes is not None and size not in self._sizes:
            raise OracleError(
                "The functions are not defined at this size.",
                where=f"oracle_from_functions(sizes={list(self._sizes)})",
                expected=f"one of {list(self._sizes)}",
                got=str(size),
                fix="choose one of these, or pass more sizes",
            )

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        """Draws of the law where there is a sampler; otherwise points to test on."""
        self.check_size(size)
        domain = self.domain(size)
        shape = (batch, self.field.channels, *domain.shape)
        name = next((name for name in ("sample", "points") if name in self.functions), None)
        if name is None:
            x = self._scale * normal(shape, generator=generator, like=self.anchor)
        else:
            function = self.functions[name]
            answer = _call(name, function, batch, size, **_randomness(name, function, generator))
            x = _tensor(name, answer, shape, self.anchor)
        return Sample(x, Context(domain))


class _Density:
    def log_density(self: Any, sample: Sample) -> Tensor:
        """Natural logarithm of the density, ``(B,)``."""
        answer: Tensor = self.ask("log_density", sample.x, shape=(len(sample.x),))
        return answer


class _Energy:
    def energy(self: Any, sample: Sample) -> Tensor:
        """Minus the log-density up to a constant, ``(B,)``."""
        answer: Tensor = -self.ask("log_density", sample.x, shape=(len(sample.x),))
        return answer


class _Score:
    def score(self: Any, sample: Sample) -> Tensor:
        """Gradient of the log-density, like ``sample.x``."""
        answer: Tensor = self.ask("score", sample.x, shape=tuple(sample.x.shape))
        return answer


class _SmoothedScore:
    def smoothed_score(self: Any, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """Score of the noisy field, like ``x``."""
        answer: Tensor = self.noisy("smoothed_score", x, sigma, shape=tuple(x.shape))
        return answer


class _PosteriorMean:
    def posterior_mean(self: Any, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """E[X_0 | x], like ``x``."""
        answer: Tensor = self.noisy("posterior_mean", x, sigma, shape=tuple(x.shape))
        return answer


class _PosteriorCovariance:
    def posterior_covariance(self: Any, x: Tensor, sigma: Tensor, context: Context, site: Site) -> Tensor:
        """Cov(X_0 at ``site``, X_0 | x), ``(B, C, C, *S)``."""
        shape = (len(x), x.shape[1], *x.shape[1:])
        answer: Tensor = self.noisy("posterior_covariance", x, sigma, site, shape=shape)
        return answer


_CAPABILITIES: dict[str, type] = {
    "log_density": _Density,
    "energy": _Energy,
    "score": _Score,
    "smoothed_score": _SmoothedScore,
    "posterior_mean": _PosteriorMean,
    "posterior_covariance": _PosteriorCovariance,
}


def oracle_from_functions(
    *,
    score: Function | None = None,
    log_density: Function | None = None,
    sample: Function | None = None,
    smoothed_score: Function | None = None,
    posterior_mean: Function | None = None,
    posterior_covariance: Function | None = None,
    points: Function | None = None,
    dim: int = 2,
    channels: int = 1,
    periodic: bool = True,
    sigma_data: float | None = None,
    sizes: Sequence[int] | None = None,
    normalised: bool = True,
    exact_sampler: bool = True,
    translation_period: int | None = None,
    even: bool = False,
) -> FunctionTeacher:
    r"""Wrap functions as a teacher: it can be checked, diagnosed, and trained on where there is a sampler.

    Arrays are numpy's or torch's, fields ``(B, C, *S)`` with ``*S = (size,) * dim``. Every function is asked once, so
    that what is wrong with its answers is said at once.

    Args:
        score: ``score(x)``, gradient of the log-density, like x.
        log_density: ``log_density(x)``, shape ``(B,)``.
        sample: ``sample(batch, size, ...)``, independent draws. Its last argument is called ``generator`` (it gets a
            ``torch.Generator``), ``seed`` (an integer) or ``rng`` (a ``numpy.random.Generator``).
        smoothed_score: ``smoothed_score(x, sigma)``, score of the noisy field; sigma has shape ``(B,)``.
        posterior_mean: ``posterior_mean(x, sigma)``, E[X_0|x], like x.
        posterior_covariance: ``posterior_covariance(x, sigma, site)``, shape ``(B, C, C, *S)``.
        points: where there is no sampler, fields to test on, called like ``sample``; by default white noise.
        dim: axes of the lattice.
        channels: numbers a site.
        periodic: torus or open box.
        sigma_data: standard deviation of one number; by default measured from ``sample`` or ``points``, or one.
        sizes: the sizes at which the functions are defined; by default all.
        normalised: whether the density integrates to one; otherwise it is taken as an energy.
        exact_sampler: whether draws are exact; otherwise they count as those of a Markov chain.
        translation_period: the law is unchanged by translations of so many steps.
        even: the law is unchanged by ``x -> -x``.

    Raises:
        SpecError: no function to check, or a sampler without an argument for its randomness.
        OracleError: a function fails, or its answer has another shape, is no array of real numbers or not finite.

    Example:
        >>> white = oracle_from_functions(score=lambda x: -x, log_density=lambda x: -0.5 * (x**2).sum((1, 2, 3)),
        ...                               normalised=False)
        >>> sorted(name for name in dir(white) if name in ("energy", "log_density", "score"))
        ['energy', 'score']
    """
    given = {
        "score": score,
        "log_density": log_density,
        "sample": sample,
        "smoothed_score": smoothed_score,
        "posterior_mean": posterior_mean,
        "posterior_covariance": posterior_covariance,
        "points": points,
    }
    functions = {name: function for name, function in given.items() if function is not None}
    _check_functions(functions)
    oracles = [name for name in functions if name not in ("sample", "points")]
    names = capability_names(oracles, normalised=normalised)
    kind = with_capabilities(FunctionTeacher, names)
    scale = 1.0 if sigma_data is None else sigma_data
    info = FieldInfo(dim=dim, channels=channels, periodic=periodic, sigma_data=scale)
    teacher: FunctionTeacher = kind(info, functions, sizes, scale)
    teacher.translation_period, teacher.even = translation_period, even
    declared = Exactness("exact" if "sample" in functions and exact_sampler else "monte_carlo")
    teacher.exactness = {"sample": declared, **{name: Exactness() for name in names}}
    probe = _probed(teacher, oracles)
    if sigma_data is None and ("sample" in functions or "points" in functions):
        teacher.field = info.model_copy(update={"sigma_data": _measured(probe)})
    return teacher


def capability_names(oracles: Sequence[str], *, normalised: bool) -> list[str]:
    """Names of the capabilities that functions give: a density that is not normalised is an energy."""
    return ["energy" if name == "log_density" and not normalised else name for name in oracles]


def with_capabilities(base: type[Any], names: Sequence[str]) -> type[Any]:
    """The class of a teacher that asks functions (:class:`Answers`), with these capabilities and no others."""
    return type(base.__name__, (*(_CAPABILITIES[name] for name in names), base), {"__module__": base.__module__})


def _check_functions(functions: Mapping[str, Function]) -> None:
    for name, function in functions.items():
        if not callable(function):
            raise SpecError(
                "What was given is no function.",
                where=f"oracle_from_functions({name}=...)",
                expected="a callable",
                got=type(function).__name__,
                fix="pass the function itself, not what it returns",
            )
    if not set(functions) - {"points"}:
        raise SpecError(
            "There is nothing to check.",
            where="oracle_from_functions",
            expected="a score, a log-density, a sampler or an oracle of noisy fields",
            got="no function" if not functions else "points alone",
            fix="pass for example score=lambda x: -x",
        )


def _probed(teacher: FunctionTeacher, oracles: Sequence[str]) -> Tensor:
    """Ask every function once about fields of a small size; return these fields."""
    teacher = teacher.double()
    size = min(teacher._sizes) if teacher._sizes else 4
    many = 64 if {"sample", "points"} & set(teacher.functions) else _PROBES
    fields = teacher.sample(many, size, generator=stream("oracle_from_functions"))
    x, context = fields.x[:_PROBES], fields.context
    sigma = torch.full((_PROBES,), teacher.field.sigma_data, dtype=x.dtype)
    for name in oracles:
        if name in ("smoothed_score", "posterior_mean"):
            getattr(teacher, name)(x, sigma, context)
        elif name == "posterior_covariance":
            teacher.posterior_covariance(x, sigma, context, (0,) * teacher.field.dim)  # type: ignore[operator]
        else:
            teacher.ask(name, x, shape=(_PROBES,) if name == "log_density" else tuple(x.shape))
    teacher.float()
    return fields.x


def _measured(x: Tensor) -> float:
    deviation = float(x.double().std())
    if not 0 < deviation < math.inf:
        raise OracleError(
            "The fields do not vary.",
            where="oracle_from_functions(sample=...)",
            expected="draws with a positive standard deviation",
            got=f"a standard deviation of {deviation!r}",
            fix="check the sampler, or pass sigma_data",
        )
    return deviation


def _randomness(name: str, function: Function, generator: torch.Generator) -> dict[str, Any]:
    """The argument through which a sampler gets its randomness."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    wanted = next((word for word in _RANDOMNESS if word in parameters), None)
    if wanted == "generator":
        return {"generator": generator}
    if wanted is None:
        raise SpecError(
            "The sampler takes no randomness, so that its draws could not be repeated.",
            where=f"oracle_from_functions({name}=...)",
            expected=f"an argument called {', '.join(_RANDOMNESS)}",
            got=f"arguments {', '.join(parameters) or 'that cannot be read'}",
            fix="def sample(batch, size, seed): ...",
        )
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    return {wanted: seed if wanted == "seed" else np.random.default_rng(seed)}


def _library(name: str, function: Function, x: Tensor, arguments: Sequence[Any]) -> Library:
    """Whether a function takes torch's tensors, else numpy's arrays."""
    with torch.enable_grad():
        # numpy refuses tensors that require gradients; without these it would take them and lose their derivative.
        point = x.detach().clone().requires_grad_()
        try:
            answer = function(point, *arguments)
        except Exception:
            # The call with arrays says what is wrong, if that fails too.
            return "numpy"
    return "torch" if isinstance(answer, Tensor) else "numpy"


def _call(name: str, function: Function, *arguments: Any, **options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except Exception as error:
        shapes = ", ".join(str(tuple(a.shape)) if hasattr(a, "shape") else repr(a) for a in arguments)
        raise OracleError(
            f"The function {name} failed.",
            where=f"{name}, called with arrays of shapes {shapes}",
            expected="an answer for torch tensors or for numpy arrays",
            got=f"{type(error).__name__}: {error}",
            fix="call it with such an array by hand; `oracle_from_functions` says what it is given",
        ) from error


def _tensor(name: str, answer: object, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An answer as a tensor like ``like``.

    Raises:
        OracleError: it has another shape, is no array of real numbers, or not finite.
    """
    if isinstance(answer, np.ndarray | np.floating) and np.issubdtype(answer.dtype, np.floating):
        tensor = torch.from_numpy(np.array(answer))
    elif isinstance(answer, Tensor) and answer.is_floating_point():
        tensor = answer
    else:
        kind = f"{type(answer).__name__}" + (f" of {answer.dtype}" if hasattr(answer, "dtype") else "")
        raise _wrong(name, "is no array of real numbers", "a floating-point array of numpy or torch", kind)
    if tuple(tensor.shape) != shape:
        raise _wrong(name, "has the wrong shape", str(shape), str(tuple(tensor.shape)))
    bad = int((~tensor.detach().isfinite()).sum())
    if bad:
        raise _wrong(name, "is not finite", "finite numbers", f"{bad} of {tensor.numel()} infinite or not a number")
    return tensor.to(like)


def _wrong(name: str, what: str, expected: str, got: str) -> OracleError:
    return OracleError(
        f"The answer of the function {name} {what}.",
        where=f"oracle_from_functions({name}=...)",
        expected=expected,
        got=got,
        fix="see the shapes in the documentation of oracle_from_functions",
    )


class _ByDifferences(torch.autograd.Function):
    """A function of numpy arrays, row by row, whose derivative is taken by five-point differences."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], step: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function, ctx.step, ctx.jacobian = function, step, None
        return function(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        if ctx.jacobian is None:
            ctx.jacobian = _jacobian(ctx.function, x.double(), ctx.step)
        pulled = torch.einsum("bm,nbm->bn", gradients[0].double().reshape(len(x), -1), ctx.jacobian)
        return pulled.reshape(x.shape).to(x), None, None


def _jacobian(function: Callable[[Tensor], Tensor], x: Tensor, step: float) -> Tensor:
    """Derivatives of every row's answer by its own field, ``(n, B, m)``."""
    columns = []
    for index in range(x[0].numel()):
        unit = torch.zeros(x[0].numel(), dtype=x.dtype)
        unit[index] = step
        along = expand(torch.ones(len(x), dtype=x.dtype), x) * unit.reshape(x.shape[1:])
        near, far = (function(x + k * along) - function(x - k * along) for k in (1, 2))
        columns.append(((8 * near - far) / (12 * step)).reshape(len(x), -1))
    return torch.stack(columns)
