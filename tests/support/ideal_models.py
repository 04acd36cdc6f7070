"""What an ideal model of some conventions answers: the exact score of a Gaussian, in its own words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.oracle import Context, Teacher


class Ideal(nn.Module):
    """A model of u = (x - shift) / scale, which knows nothing of any wrapper.

    Args:
        teacher: knows its smoothed score.
        unit: units of the teacher's field in one unit of the model's data.
        table: alpha-bar, of a model with time steps.
        sigma_data: of a preconditioned one.
        error: relative error of the score, by a smooth function of the field.
        order: for every channel of the model that of the teacher.
        late: steps by which its times are behind the table.
    """

    def __init__(
        self,
        process: str,
        predicts: str,
        teacher: Teacher,
        *,
        unit: float = 1.0,
        table: Tensor | None = None,
        sigma_data: float = 1.0,
        error: float = 0.0,
        order: tuple[int, ...] | None = None,
        late: int = 0,
    ) -> None:
        super().__init__()
        self.process, self.predicts, self.unit, self.sigma_data = process, predicts, unit, sigma_data
        self.answers, self.table, self.error, self.order, self.late = [teacher], table, error, order, late

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        sigma = self._level(time)
        level = sigma.reshape(-1, *(1,) * (z.ndim - 1))
        a = {
            "ve": torch.ones_like(level),
            "vp": (1 + level**2).rsqrt(),
            "edm": (level**2 + self.sigma_data**2).rsqrt(),
        }[self.process]
        d = self.sigma_data if self.process == "edm" else 1.0
        u = z / a
        score = self._score(u, sigma)
        clean, noise = u + level**2 * score, -level * score
        total = (level**2 + d**2).sqrt()
        return {
            "score": score / a,
            "clean": clean,
            "noise": noise,
            "v": (d * noise - level * clean / d) / total,
            "preconditioned": (level * clean / d - d * noise) / total,
        }[self.predicts]

    def _level(self, time: Tensor) -> Tensor:
        if self.process == "vp":
            steps = (time - self.late).clamp(0, len(self.table) - 1)
            return ((1 - self.table) / self.table).sqrt()[steps.long()]
        return (4 * time).exp() if self.process == "edm" else time

    def _score(self, u: Tensor, sigma: Tensor) -> Tensor:
        order = list(self.order or range(u.shape[1]))
        inverse = sorted(range(len(order)), key=order.__getitem__)
        context = Context(Lattice(tuple(u.shape[2:]), periodic=True))
        score = self.unit * self.answers[0].smoothed_score(self.unit * u[:, inverse], self.unit * sigma, context)
        score = score[:, order]
        return score * (1 + self.error * 2**0.5 * torch.sin(3 * u)) if self.error else score
