r"""Reverse diffusion in the variance clock: from noise to fields, along any score.

Symbols: :math:`v = \sigma^2` the variance of the noise now, :math:`v' < v` the variance next, :math:`s_v` the score at
noise v, :math:`\lambda` the churn, :math:`\delta = v - v'` the step. In the clock :math:`\tau = v_{\max} - v` every
variance-exploding process is the same one,

.. math:: dX = \tfrac{1+\lambda^2}{2}\, s_v(X)\, d\tau + \lambda\, dB ,

with the marginals :math:`p_v` whatever the churn: :math:`\lambda = 1` is the reverse stochastic equation (paper §2.2),
:math:`\lambda = 0` the probability-flow equation. One step to :math:`v'` with standard normal :math:`\xi`:

=============  =======================================================================================  ==========
method         step                                                                                     weak order
=============  =======================================================================================  ==========
``euler``      :math:`x + \tfrac{1+\lambda^2}{2}\delta\, s_v(x) + \lambda\sqrt\delta\,\xi`              1
``heun``       the mean of the drifts at x and at the end of the Euler step, with the same noise        2
``ancestral``  :math:`y + \sqrt{(v'-\eta)/v}\,(x-y) + \sqrt\eta\,\xi`,                                  1
               :math:`y = x + v s_v(x)`, :math:`\eta = \lambda^2\delta v'/v`
=============  =======================================================================================  ==========

With :math:`\lambda = 1`, Euler and ancestral steps both have the exact conditional mean
:math:`x + (v - v')s_v(x)` of any prior. The noise that belongs to it has, for a Gaussian prior of variance c, the
variance :math:`\delta(c+v')/(c+v)`: between the ancestral :math:`\delta v'/v`, exact for a prior that is one point, and
Euler's :math:`\delta`, exact for a flat one. Ancestral noise is therefore the better of the two for long steps from
noise far above the data's deviation, and the worse where :math:`\sigma_{\max}` is near it: 16 steps of the power grid
from :math:`\sigma_{\max}` 1, 2, 5 and 20 to 0.05 change the variance of a free field of deviation 0.56 (two dimensions,
mass 0.7) by +9, +19, +31 and +50 % with Euler's, by -14, -19, -25 and -33 % with ancestral noise, and by -1, -3, -8 and
-19 % with Heun steps. The orders are those of smooth grids and are asserted, as slopes, against
exactly solvable processes.

References:
    Song et al., Score-based generative modeling through stochastic differential equations, 2021, arXiv:2011.13456.
    Song, Meng, Ermon, Denoising diffusion implicit models, 2021, arXiv:2010.02502 (the churn of ancestral steps).
    Karras et al., Elucidating the design space of diffusion-based generative models, 2022, arXiv:2206.00364 (grids).
    Kloeden, Platen, Numerical solution of stochastic differential equations, 1992, §15.1 (order 2 for additive noise).
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.arithmetic import arithmetic, in_steps
from sizetransfer.contracts.errors import NonFiniteError, SpecError
from sizetransfer.contracts.noise import sigma_grid
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import Stream, normal, stream
from sizetransfer.contracts.specs import NoiseSchedule, Spec, did_you_mean

Method = Literal["euler", "heun", "ancestral"]
Score = Callable[[Tensor, Tensor, Context], Tensor]
"""A score of field ``B C *S``, noise levels ``(B,)`` and context, like the field: a student, a ``smoothed_score``."""
Drift = Callable[[Tensor, float], Tensor]
"""The score as a function of the field and of the variance v."""
Streams = Stream | Sequence[torch.Generator]
"""One stream of all fields, or a generator for each."""
Step = Callable[[Drift, Tensor, float, float, float, Tensor], Tensor]


class SamplerSpec(Spec):
    """How a reverse process is discretised.

    The reverse stochastic equation is ``method: euler, churn: 1``; the probability flow is ``method: heun, churn: 0``.

    Attributes:
        method: ``euler`` (weak order 1), ``heun`` (order 2, two scores a step) or ``ancestral`` (order 1).
        steps: steps from ``noise.sigma_max`` to ``noise.sigma_min``.
        churn: noise put back in, relative to the reverse stochastic equation; zero is deterministic.
        grid: noise levels equally spaced in their logarithm (``geometric``) or in their power 1/rho (``power``).
        rho: exponent of the power grid (Karras et al. 2022, eq. (5)).
        noise: range of noise levels; a student's should lie within the range of its training.
    """

    method: Method = "heun"
    steps: int = Field(32, ge=1)
    churn: float = Field(1.0, ge=0, allow_inf_nan=False)
    grid: Literal["geometric", "power"] = "power"
    rho: float = Field(7.0, gt=0, allow_inf_nan=False)
    noise: NoiseSchedule = NoiseSchedule()

    def sigmas(self) -> Float[Tensor, "levels"]:
        """The ``steps + 1`` noise levels, largest first, in double precision."""
        if self.grid == "geometric":
            return sigma_grid(self.noise, self.steps + 1)
        first, last = (sigma ** (1 / self.rho) for sigma in (self.noise.sigma_max, self.noise.sigma_min))
        return torch.linspace(first, last, self.steps + 1, dtype=torch.float64) ** self.rho


def euler(score: Drift, x: Tensor, v: float, v_next: float, churn: float, noise: Tensor) -> Tensor:
    """One Euler-Maruyama step: weak order 1."""
    step = v - v_next
    return x + 0.5 * (1 + churn**2) * step * score(x, v) + churn * math.sqrt(step) * noise


def heun(score: Drift, x: Tensor, v: float, v_next: float, churn: float, noise: Tensor) -> Tensor:
    """One step of Heun's method: order 2 without churn, and weak order 2 with it because the noise is additive."""
    drift, kick = 0.5 * (1 + churn**2) * (v - v_next), churn * math.sqrt(v - v_next) * noise
    first = score(x, v)
    second = score(x + drift * first + kick, v_next)
    return x + 0.5 * drift * (first + second) + kick


def ancestral(score: Drift, x: Tensor, v: float, v_next: float, churn: float, noise: Tensor) -> Tensor:
    """One ancestral step: weak order 1, with the exact mean (churn 1) and the exact kernel of a prior of one point."""
    variance = churn**2 * (v - v_next) * v_next / v
    clean = x + v * score(x, v)
    return clean + math.sqrt((v_next - variance) / v) * (x - clean) + math.sqrt(variance) * noise


STEPS: Mapping[str, Step] = {"euler": euler, "heun": heun, "ancestral": ancestral}
ORDERS: Mapping[str, int] = {"euler": 1, "heun": 2, "ancestral": 1}


def sample(
    score: Score,
    initial: Float[Tensor, "batch channels *size"],
    sigmas: Float[Tensor, "levels"],
    *,
    context: Context,
    method: str = "heun",
    churn: float = 1.0,
    generator: torch.Generator | Sequence[torch.Generator],
) -> Float[Tensor, "batch channels *size"]:
    """Run the reverse process from ``initial``, at noise ``sigmas[0]``, to noise ``sigmas[-1]``.

    Every field has a random stream of its own, so a field does not change with the batch that it is drawn in.

    Args:
        score: a student, ``teacher.smoothed_score``, or any function of field, noise levels and context.
        initial: fields at the largest noise; sites that the context masks stay as they are.
        sigmas: decreasing noise levels, all positive (:meth:`SamplerSpec.sigmas`).
        context: what the score may see beside the field; its domain has the fields' shape.
        method: ``euler``, ``heun`` or ``ancestral``, see the module's table.
        churn: noise put back in; zero is deterministic.
        generator: a stream, which has numbers for every field; one generator a field; or one generator, which names a
            stream for each.

    Raises:
        SpecError: the noise levels do not decrease, the method is unknown, the churn is negative or too large for an
            ancestral step, the context is that of other fields, or there are not as many generators as fields.
        NonFiniteError: a field or score stops being finite; it names the step.
    """
    states = rollout(score, initial, sigmas, context=context, method=method, churn=churn, generator=generator)
    return collections.deque(states, maxlen=1).pop()


def rollout(
    score: Score,
    initial: Float[Tensor, "batch channels *size"],
    sigmas: Float[Tensor, "levels"],
    *,
    context: Context,
    method: str = "heun",
    churn: float = 1.0,
    generator: torch.Generator | Sequence[torch.Generator],
) -> Iterator[Tensor]:
    """Like :func:`sample`, but yield the fields at every noise level after the first."""
    surroundings = functools.partial(arithmetic, initial.dtype, initial.device, generators=False)
    states = _rollout(score, initial, sigmas, context=context, method=method, churn=churn, generator=generator)
    return in_steps(states, surroundings)


def _rollout(
    score: Score,
    initial: Tensor,
    sigmas: Tensor,
    *,
    context: Context,
    method: str,
    churn: float,
    generator: torch.Generator | Sequence[torch.Generator],
) -> Iterator[Tensor]:
    levels, streams = sigmas.tolist(), _streams(len(initial), generator)
    _check(levels, method, churn)
    _check_domain(initial, context)
    initial, context = _tracked(initial), context.to(initial)
    x = initial
    for index, (sigma, sigma_next) in enumerate(itertools.pairwise(levels), start=1):
        noise = _on_live_sites(draw_noise(x, streams), context) if churn > 0 else torch.zeros_like(x)
        with torch.no_grad():
            moved = STEPS[method](_drift(score, context), x, sigma**2, sigma_next**2, churn, noise)
        x = moved if context.mask is None else torch.where(context.mask, moved, initial)
        _require_finite(x, f"step {index} of {len(levels) - 1}, sigma {sigma:.4g} to {sigma_next:.4g}")
        yield x


def generate(
    score: Score,
    spec: SamplerSpec,
    like: Float[Tensor, "batch channels *size"],
    *,
    context: Context,
    generator: torch.Generator | Sequence[torch.Generator],
    sigma_data: float = 0.0,
) -> Float[Tensor, "batch channels *size"]:
    r"""Draw fields with the shape, dtype and device of ``like``, from white noise to noise ``spec.noise.sigma_min``.

    The start is :math:`N(0, (\sigma_{\max}^2 + \sigma_d^2) I)`. With ``sigma_data`` zero it is the usual start; with
    the standard deviation of the data it has the right variance, which matters where :math:`\sigma_{\max}` is not
    much larger than the data.

    Raises:
        SpecError, NonFiniteError: as :func:`sample`.
    """
    with arithmetic(like.dtype, like.device, generators=False):
        streams = _streams(len(like), generator)
        start = math.hypot(spec.noise.sigma_max, sigma_data) * draw_noise(like, streams)
        if context.mask is not None:
            start = torch.where(context.mask.to(like.device), start, like)
        levels = spec.sigmas()
        return sample(score, start, levels, context=context, method=spec.method, churn=spec.churn, generator=streams)


def field_streams(batch: int, *, generator: torch.Generator) -> Streams:
    """What gives every field numbers of its own: the stream itself, or a stream a field, named by draws of a generator.

    The first ones are the same for every ``batch``; of a generator that is no
    :class:`~sizetransfer.contracts.randomness.Stream`, two calls of batch n give those of one call of 2n.
    """
    if isinstance(generator, Stream):
        return generator
    names = [torch.randint(2**62, (2,), generator=generator, device=generator.device).tolist() for _ in range(batch)]
    return [stream("field", *name) for name in names]


def draw_noise(like: Tensor, streams: Streams) -> Tensor:
    """Standard normal numbers like ``like`` (``B C *S``), each field's from its own stream."""
    if isinstance(streams, torch.Generator):
        return normal(like.shape, generator=streams, like=like)
    rows = zip(like, streams, strict=True)
    return torch.cat([normal((1, *row.shape), generator=own, like=row) for row, own in rows])


def _drift(score: Score, context: Context) -> Drift:
    return lambda x, v: _on_live_sites(score(x, x.new_full((len(x),), math.sqrt(v)), context), context)


def _on_live_sites(values: Tensor, context: Context) -> Tensor:
    """Zeros at dead sites: neither noise nor drift moves them, so no score sees them moved, within a step either."""
    return values if context.mask is None else torch.where(context.mask, values, 0.0)


def _tracked(x: Tensor) -> Tensor:
    """The field itself, or a copy of one that was made in inference mode, which gradients could not be taken of."""
    return x.clone() if x.is_inference() else x


def _streams(batch: int, generator: torch.Generator | Sequence[torch.Generator]) -> Streams:
    streams = field_streams(batch, generator=generator) if isinstance(generator, torch.Generator) else generator
    count = streams.count if isinstance(streams, Stream) else len(streams)
    if count not in {None, batch}:
        raise SpecError(
            "Every field needs a random stream of its own.",
            where="generator",
            expected=f"one torch.Generator, or {batch} of them",
            got=f"{count} of them",
            fix="pass a single generator, or one for each field",
        )
    return streams


def _check(levels: Sequence[float], method: str, churn: float) -> None:
    if len(levels) < 2 or not levels[-1] > 0 or not all(s > s_next for s, s_next in itertools.pairwise(levels)):
        raise SpecError(
            "The noise levels of a reverse process must decrease.",
            where="sigmas",
            expected="at least two positive, strictly decreasing noise levels",
            got=", ".join(f"{sigma:.6g}" for sigma in levels[:8]) or "none",
            fix="take the levels of SamplerSpec(...).sigmas()",
        )
    if method not in STEPS:
        raise SpecError(
            "The method is unknown.",
            where="method",
            expected=f"one of {', '.join(STEPS)}",
            got=repr(method),
            fix=did_you_mean(method, STEPS),
        )
    if not 0 <= churn < math.inf:
        raise SpecError(
            "The churn is not the size of a noise.",
            where="churn",
            expected="a finite number, zero or more",
            got=str(churn),
            fix="take 0 for the probability flow, 1 for the reverse stochastic equation",
        )
    largest = 1 / math.sqrt(1 - min((s_next / s) ** 2 for s, s_next in itertools.pairwise(levels)))
    if method == "ancestral" and churn > largest:
        raise SpecError(
            "The churn is too large for ancestral steps of this length.",
            where="churn",
            expected=f"at most {largest:.4g} with these noise levels",
            got=str(churn),
            fix="lower the churn, take more steps, or use method: euler",
        )


def _check_domain(x: Tensor, context: Context) -> None:
    if x.shape[2:] != context.domain.shape:
        raise SpecError(
            "The fields do not live on the context's domain.",
            where="initial or like, context",
            expected=f"shape (batch, channels, {', '.join(map(str, context.domain.shape))})",
            got=f"shape {tuple(x.shape)}",
            fix="take the context of fields of this size, for example teacher.sample(...).context",
        )


def _require_finite(x: Tensor, where: str) -> None:
    if not x.isfinite().all():
        raise NonFiniteError(
            "A reverse process left the finite numbers.",
            where=where,
            expected="finite fields and scores",
            got=f"{int((~x.isfinite()).sum())} numbers of {x.numel()} that are not finite",
            fix="take more steps or less churn; if the score itself is not finite, look at the student's training",
        )
