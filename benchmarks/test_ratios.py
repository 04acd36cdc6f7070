"""Our pieces beside what one would otherwise write, in one run: each group is a ratio."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sizetransfer.contracts.domain import pad
from sizetransfer.numerics.layers import SymmetricConvolution, power_law_kernel


def plain_smoothing(x, kernel):
    width = kernel.shape[-1] // 2
    return F.conv2d(F.pad(x, (width,) * 4, mode="circular"), kernel)


def our_smoothing(x, kernel):
    return SymmetricConvolution.apply(x, kernel, True)


@pytest.mark.parametrize("smoothing", [plain_smoothing, our_smoothing])
@pytest.mark.benchmark(group="smoother of cutoff 8 and its gradient, 8 fields of 32 x 32")
def test_smoother(benchmark, smoothing):
    kernel = power_law_kernel(8, 1.0, 2)[None, None]
    x = torch.randn(8, 1, 32, 32, dtype=torch.float32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    benchmark(lambda: torch.autograd.grad(smoothing(x, kernel).square().sum(), x))


class OurCircular(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Conv2d(32, 32, 3)

    def forward(self, x):
        return self.linear(pad(x, 1, periodic=True))


@pytest.mark.parametrize(
    "build", [lambda: nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular"), OurCircular], ids=["torch", "ours"]
)
@pytest.mark.benchmark(group="circular convolution of 32 channels and its gradients, 8 fields of 32 x 32")
def test_circular_convolution(benchmark, build):
    layer = build().float()
    x = torch.randn(8, 32, 32, 32, dtype=torch.float32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    benchmark(lambda: torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()]))
