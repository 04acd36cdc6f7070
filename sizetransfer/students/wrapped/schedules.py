r"""Time steps of models that are told a time in place of a noise level.

A variance-preserving process :math:`z_t = \alpha_t u_0 + \beta_t\xi` has at time t the noise level
:math:`\sigma_t = \beta_t/\alpha_t` of :math:`z_t/\alpha_t = u_0 + \sigma_t\xi`; with discrete steps
:math:`\alpha_t = \sqrt{\bar\alpha_t}`, :math:`\beta_t = \sqrt{1-\bar\alpha_t}`. A noise level that the schedule does
not reach is refused: the model was never trained there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.specs import did_you_mean

Timestep = Callable[[Tensor], Tensor]

STEPS = 1000


class NearestTimestep:
    """Takes noise levels ``(B,)`` to the nearest steps in the logarithm, integers ``(B,)``.

    Args:
        alphas_cumprod: shape ``(T,)``, decreasing, between zero and one.
        offset: added to the step that the table gives, within the table.

    Attributes:
        levels: noise levels of the steps, ``(T,)``, float64.
    """

    def __init__(self, alphas_cumprod: Tensor, offset: int = 0) -> None:
        table = alphas_cumprod.detach().double().cpu()
        self.alphas_cumprod, self.offset = table, offset
        self.levels = ((1 - table) / table).sqrt()

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest noise level."""
        return float(self.levels[0]), float(self.levels[-1])

    def __call__(self, sigma: Tensor) -> Tensor:
        """The steps.

        Raises:
            OracleError: a level beyond the first or the last step by more than half a usual step.
        """
        logs = self.levels.log()
        asked = sigma.detach().to(device="cpu", dtype=torch.float64).log()
        half = logs.diff().median() / 2  # the ends of a cosine schedule are steps of a factor of thirty
        if bool((asked < logs[0] - half).any() | (asked > logs[-1] + half).any()):
            raise outside(sigma, self.sigma_range)
        step = (asked[:, None] - logs).abs().argmin(1) + self.offset
        return step.clamp(0, len(logs) - 1).to(sigma.device)


def nearest_timestep(alphas_cumprod: Tensor | npt.NDArray[np.generic] | str | Path) -> NearestTimestep:
    r"""Time steps of a variance-preserving model with discrete steps.

    Args:
        alphas_cumprod: :math:`\bar\alpha_t`, shape ``(T,)``, of torch or numpy; or a name (``ddpm-linear``,
            ``scaled-linear``, ``cosine``); or a ``.npy`` file of the table.

    Returns:
        A function from noise levels of shape ``(B,)`` to the nearest steps in the logarithm, integers ``(B,)``.

    Raises:
        SpecError: no such name or file, or numbers that are no such table.
    """
    if isinstance(alphas_cumprod, str | Path):
        return NearestTimestep(_checked(_named_table(str(alphas_cumprod)), str(alphas_cumprod)))
    table = torch.from_numpy(np.array(alphas_cumprod)) if isinstance(alphas_cumprod, np.ndarray) else alphas_cumprod
    return NearestTimestep(_checked(table, f"a table of {tuple(table.shape)}"))


def continuous_timestep(schedule: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Timestep:
    r"""Times in [0, 1] of a continuous schedule, by bisection of :math:`\sigma_t/\alpha_t`.

    Args:
        schedule: takes times to :math:`(\alpha_t, \beta_t)`, as the schedules of ``azula`` do; the ratio rises.
    """

    def ratio(time: Tensor) -> Tensor:
        alpha, beta = schedule(time)
        return beta / alpha

    def timestep(sigma: Tensor) -> Tensor:
        low, high = torch.zeros_like(sigma), torch.ones_like(sigma)
        ends = float(ratio(low[:1])), float(ratio(high[:1]))
        if bool((sigma < ends[0] * (1 - 1e-6)).any() | (sigma > ends[1] * (1 + 1e-6)).any()):
            raise outside(sigma, ends)
        for _ in range(60):
            middle = (low + high) / 2
            below = ratio(middle) < sigma
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    return timestep


def as_timestep(value: object) -> Timestep | None:
    """What ``timestep`` names, as a function."""
    if value is None or isinstance(value, NearestTimestep):
        return value
    if isinstance(value, str | Path | np.ndarray | Tensor):
        return nearest_timestep(value)
    if callable(value):
        return cast(Timestep, value)
    raise SpecError(
        "The time steps are not known.",
        where="module, timestep",
        expected="a table of alpha-bar, its name or file, or a function of the noise level",
        got=type(value).__name__,
        fix=f"pass one of {', '.join(NAMED)}, a path to .npy, an array or a function",
    )


def outside(sigma: Tensor, levels: tuple[float, float]) -> OracleError:
    """The error of a noise level that a model was not trained at."""
    return OracleError(
        "The model was not trained at this noise level.",
        where="wrapped module, noise level in units of the model",
        expected=f"between {levels[0]:.4g} and {levels[1]:.4g}, the range of its schedule",
        got=f"{float(sigma.min()):.4g} to {float(sigma.max()):.4g}",
        fix="ask at noise levels inside (times scale, in units of the field), or correct timestep or scale",
    )


def _linear() -> Tensor:
    """Ho, Jain, Abbeel 2020 (arXiv:2006.11239)."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64), 0)


def _scaled_linear() -> Tensor:
    """Rombach et al. 2022 (arXiv:2112.10752)."""
    betas = torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), STEPS, dtype=torch.float64).square()
    return torch.cumprod(1 - betas, 0)


def _cosine() -> Tensor:
    """Nichol, Dhariwal 2021 (arXiv:2102.09672), with betas of at most 0.999."""
    time = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS
    bar = ((time + 0.008) / 1.008 * math.pi / 2).cos().square()
    return torch.cumprod(1 - (1 - bar[1:] / bar[:-1]).clamp_max(0.999), 0)


NAMED: dict[str, Callable[[], Tensor]] = {
    "ddpm-linear": _linear,
    "scaled-linear": _scaled_linear,
    "cosine": _cosine,
}


def _named_table(name: str) -> Tensor:
    if name in NAMED:
        return NAMED[name]()
    path = Path(name)
    if path.suffix != ".npy" or not path.is_file():
        raise SpecError(
            f"There is no schedule {name!r}.",
            where="module, timestep",
            expected=f"one of {', '.join(NAMED)}, or a file .npy of alpha-bar",
            got=f"{name}{'' if path.exists() or path.suffix != '.npy' else ', which does not exist'}",
            fix=did_you_mean(name, NAMED) or "correct the name or the path",
        )
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float64))
    except (OSError, ValueError) as error:
        raise SpecError(
            "The table of time steps cannot be read.",
            where=f"module, timestep {name}",
            expected="a .npy file of numbers",
            got=f"{type(error).__name__}: {error}",
            fix="save it with numpy.save, as numbers",
        ) from None


def _checked(table: Tensor, where: str) -> Tensor:
    values = table.double().flatten()
    inside = table.ndim == 1 and len(values) > 1 and bool(((values > 0) & (values < 1)).all())
    if inside and bool((values.diff() < 0).all()):
        return table
    rising = inside and bool((values.diff() >= 0).all())
    raise SpecError(
        "The numbers are no table of alpha-bar.",
        where=f"module, timestep: {where}",
        expected="at least two numbers between 0 and 1, decreasing: alphas_cumprod",
        got="numbers that increase, as betas do" if rising else f"shape {tuple(table.shape)}, other numbers",
        fix="pass alphas_cumprod: of betas, torch.cumprod(1 - betas, 0); of noise levels, 1/(1 + sigma**2)",
    )
