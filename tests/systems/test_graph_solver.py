"""Large graphs: linear systems give the law, the draws and the scores of the dense algebra."""

from __future__ import annotations

import pytest
import torch

import sizetransfer as st
from sizetransfer.contracts.errors import OracleError
from sizetransfer.systems.gaussian import graph as gaussian_graph
from sizetransfer.systems.gaussian import graph_solver
from sizetransfer.systems.gaussian.graph_solver import GraphSolver

ROUNDING = 1e-10
CASES = {
    "scalar": {"preset": "disordered-plane"},
    "crystal": {"preset": "harmonic-crystal"},
    "coupled": {"preset": "disordered-plane", "channels": 2, "coupling": [[2.0, 0.7], [0.7, 1.0]], "mass": 0.1},
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def teacher(request):
    return st.teacher("gaussian-graph", **request.param).double()


def test_the_draws_have_exactly_the_covariance_of_the_law(teacher) -> None:
    size, channels = 30, teacher.field.channels
    graph = teacher.domain(size)
    solver = GraphSolver(teacher.spec, graph, channels)
    edges, sites = len(graph.edges), channels * size
    inputs = torch.eye(sites + channels * edges)
    columns = solver.colour(
        inputs[:, :sites].reshape(-1, channels, size), inputs[:, sites:].reshape(-1, channels, edges)
    )
    covariance = torch.einsum("bin,bjm->injm", columns, columns)
    expected = teacher.covariance(size, torch.arange(size))
    torch.testing.assert_close(covariance, expected, rtol=0, atol=ROUNDING)
    # The mass is needed, and is not in the edges.
    lighter = torch.einsum("bin,bjm->injm", columns[sites:], columns[sites:])
    assert (lighter - expected).abs().max() > 1e-3


def test_scores_and_their_responses_are_those_of_the_dense_algebra(teacher, generator, monkeypatch) -> None:
    sample = teacher.sample(3, 40, generator=generator)
    x = sample.x.clone().requires_grad_()
    sigma = torch.tensor([0.05, 0.5, 4.0])

    def answers() -> list[torch.Tensor]:
        clean, smooth = teacher.score(sample.with_x(x)), teacher.smoothed_score(x, sigma, sample.context)
        rows = [torch.autograd.grad(score[:, 0, 7].sum(), x)[0] for score in (clean, smooth)]
        return [clean.detach(), smooth.detach(), *rows]

    dense = answers()
    monkeypatch.setattr(gaussian_graph, "DENSE_SITES", 0)
    monkeypatch.setattr(gaussian_graph, "GaussianField", None)
    for found, expected in zip(answers(), dense, strict=True):
        torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)


def test_large_systems_are_drawn_in_either_precision_without_all_pairs(monkeypatch) -> None:
    teacher = st.teacher("gaussian-graph", preset="disordered-plane").float()
    monkeypatch.setattr(gaussian_graph, "GaussianField", None)
    size = gaussian_graph.DENSE_SITES + 1
    sample = teacher.sample(2, size, generator=torch.Generator().manual_seed(3))
    sigma = torch.full((2,), 0.3, dtype=torch.float32)
    for value in (sample.x, teacher.score(sample), teacher.smoothed_score(sample.x, sigma, sample.context)):
        assert value.dtype == torch.float32
        assert value.shape == (2, 1, size)
        assert value.isfinite().all()
    again = teacher.sample(2, size, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again.x, sample.x)
    with pytest.raises(OracleError, match="not positive"):
        teacher.smoothed_score(sample.x, -sigma, sample.context)


def test_a_system_that_is_not_solved_is_named(teacher, generator, monkeypatch) -> None:
    monkeypatch.setattr(graph_solver, "LARGEST_STEPS", 3)
    with pytest.raises(OracleError, match="not solved to rounding"):
        GraphSolver(teacher.spec, teacher.domain(40), teacher.field.channels).sample(
            1, generator=generator, like=teacher.anchor
        )
