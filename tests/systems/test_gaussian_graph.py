"""Gaussian teachers on graphs against dense linear algebra, and graphs against brute force."""

from __future__ import annotations

import itertools

import pytest
import torch
from dense_gaussian import graph_precision, noisy_covariance
from tolerances import assert_rounding
from torch.distributions import MultivariateNormal

import sizetransfer as st
from sizetransfer.contracts.domain import Graph, edges_within
from sizetransfer.contracts.errors import OracleError, SizetransferError, SpecError
from sizetransfer.contracts.oracle import HasCovariance, HasDensity, HasPosterior, HasScore, HasSmoothedScore, Sample
from sizetransfer.numerics.shells import shell_sums
from sizetransfer.runs.preflight import plan
from sizetransfer.scores.response import reference_sites
from sizetransfer.systems.gaussian.graph import GaussianGraphTeacher, separated_positions

TOLERANCE = 1e-10
SIGNIFICANCE = 5.0
SIGMA = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
TREE = [[0, 1], [2, 0], [1, 3], [1, 4], [4, 5]]
THREE = ((2.0, 0.5, -0.3), (0.5, 1.0, 0.2), (-0.3, 0.2, 1.5))
# The second and the fifth are 1.3 apart in a box of 3, to rounding: a cutoff of 1.3 would be decided by the last bit.
POINTS = [[0.0, 0.0], [0.9, 0.1], [1.7, 0.4], [0.2, 1.1], [2.6, 0.1], [2.7, 1.2]]
CASES = {
    "tree": ({"edges": TREE}, 6),
    "three-channels": ({"edges": TREE, "channels": 3, "coupling": THREE, "mass": 0.2}, 6),
    "points": ({"positions": POINTS, "cutoff": 1.29}, 6),
    "points-in-a-periodic-box": ({"positions": POINTS, "cutoff": 1.29, "box": 3.0}, 6),
    "random-plane": ({"seed": 3}, 24),
    "random-volume": ({"preset": "disordered-volume", "channels": 3, "coupling": THREE}, 30),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    fields, size = request.param
    teacher = st.teacher("gaussian-graph", **fields).double()
    spec = teacher.spec
    edges = teacher.domain(size).edges
    return teacher, size, graph_precision(size, edges, spec.mass, spec.channel_matrix(spec.channels))


def largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max())


def test_every_oracle_agrees_with_dense_linear_algebra(case, generator):
    teacher, size, precision = case
    x = torch.randn(3, teacher.field.channels, size, generator=generator)
    context, site = teacher.context(3, size), (2,)
    covariance = torch.linalg.inv(precision)
    sample = Sample(x, context)
    smoothed, mean = teacher.smoothed_score(x, SIGMA, context), teacher.posterior_mean(x, SIGMA, context)
    posterior, response = teacher.posterior_covariance(x, SIGMA, context, site), teacher.response(SIGMA, context, site)
    density = teacher.smoothed_log_density(x, SIGMA, context)
    clean = MultivariateNormal(torch.zeros(len(precision)), precision_matrix=precision)
    assert largest(teacher.log_density(sample) - clean.log_prob(x.flatten(1))) < 1e-8
    for row, sigma in enumerate(SIGMA.tolist()):
        noisy = noisy_covariance(precision, sigma)
        inverse, flat = torch.linalg.inv(noisy), x[row].flatten()
        exact = covariance - covariance @ inverse @ covariance
        assert largest(teacher.score(sample)[row].flatten() + precision @ flat) < TOLERANCE
        assert largest(smoothed[row].flatten() + inverse @ flat) < TOLERANCE
        assert largest(mean[row].flatten() - covariance @ inverse @ flat) < TOLERANCE
        assert abs(density[row] - MultivariateNormal(torch.zeros(len(noisy)), noisy).log_prob(flat)) < 1e-8
        for channel in range(teacher.field.channels):
            at = channel * size + site[0]
            assert largest(posterior[row, channel].flatten() - exact[at]) < TOLERANCE
            assert largest(response[row, channel].flatten() + inverse[at]) < TOLERANCE


def test_covariance_and_scale_agree_with_dense_linear_algebra(case):
    teacher, size, precision = case
    sites = torch.tensor([3, 0, 5])
    covariance = torch.linalg.inv(precision)
    blocks = covariance.reshape(teacher.field.channels, size, teacher.field.channels, size)
    assert largest(teacher.covariance(size, sites) - blocks[:, sites][..., sites]) < TOLERANCE
    if teacher.spec.fixed_size() == size:
        assert teacher.field.sigma_data**2 == pytest.approx(float(covariance.diagonal().mean()), rel=1e-12)


def test_the_scale_of_random_positions_is_that_of_the_reference_size():
    teacher = build({"seed": 3})
    precision = graph_precision(256, teacher.domain(256).edges, 0.5, torch.eye(1))
    variance = float(torch.linalg.inv(precision).diagonal().mean())
    assert teacher.field.sigma_data**2 == pytest.approx(variance, rel=1e-12)


def test_samples_have_the_covariance_of_the_law(generator):
    # 18 * 19 / 2 entries at 5 standard errors: a false alarm in 10000 runs.
    teacher, draws = st.teacher("gaussian-graph", **CASES["three-channels"][0]).double(), 20000
    x = teacher.sample(draws, 6, generator=generator).x
    assert x.shape == (draws, 3, 6)
    x = x.flatten(1)
    covariance = torch.linalg.inv(graph_precision(6, TREE, 0.2, torch.tensor(THREE)))
    errors = ((torch.outer(covariance.diagonal(), covariance.diagonal()) + covariance**2) / draws).sqrt()
    assert ((x.T @ x / draws - covariance) / errors).abs().max() < SIGNIFICANCE
    unmixed = torch.linalg.inv(graph_precision(6, TREE, 0.2, torch.diag(torch.tensor(THREE).diagonal())))
    assert ((x.T @ x / draws - unmixed) / errors).abs().max() > SIGNIFICANCE


def test_on_the_graph_of_a_torus_it_is_the_field_on_the_torus(generator):
    index = torch.arange(25).reshape(5, 5)
    edges = [
        pair
        for axis in (0, 1)
        for pair in zip(index.flatten().tolist(), index.roll(-1, axis).flatten().tolist(), strict=True)
    ]
    graph = st.teacher("gaussian-graph", edges=edges, mass=0.4).double()
    torus = st.teacher("gaussian", dim=2, mass=0.4).double()
    x = torch.randn(3, 1, 5, 5, generator=generator)
    on_graph = graph.smoothed_score(x.flatten(2), SIGMA, graph.context(3, 25))
    assert_rounding(on_graph.reshape(x.shape), torus.smoothed_score(x, SIGMA, torus.context(3, 5)))
    assert graph.field.sigma_data != pytest.approx(torus.field.sigma_data, rel=1e-6)


def test_hops_are_shortest_paths():
    generator = torch.Generator().manual_seed(1)
    for count in (2, 9, 20):
        tree = [[int(torch.randint(i, (1,), generator=generator)), i] for i in range(1, count)]
        extra = {tuple(sorted(pair)) for pair in torch.randint(count, (count // 2, 2), generator=generator).tolist()}
        pairs = {tuple(pair) for pair in tree} | {pair for pair in extra if pair[0] != pair[1]}
        graph = Graph(count, torch.tensor(sorted(pairs)))
        hops = torch.full((count, count), float("inf"))
        hops.fill_diagonal_(0)
        for i, j in pairs:
            hops[i, j] = hops[j, i] = 1
        for k, i, j in itertools.product(range(count), repeat=3):  # Floyd and Warshall
            hops[i, j] = min(hops[i, j], hops[i, k] + hops[k, j])
        for site in range(count):
            assert torch.equal(graph.distance((site,)).double(), hops[site])
            assert torch.equal(graph.ball((site,), 2), hops[site] <= 2)
            assert torch.equal(graph.shell((site,), 2), hops[site] == 2)


def test_regions_and_edges_of_a_graph():
    graph = Graph(4, torch.tensor([[0, 1], [2, 1], [2, 3]]))
    assert (graph.shape, graph.sites, graph.centre()) == ((4,), 4, (0,))
    assert graph.bulk(7).all()
    assert graph.directed_edges.tolist() == [[0, 2, 2, 1, 1, 3], [1, 1, 3, 0, 2, 2]]
    assert graph.laplacian.tolist() == [[1, -1, 0, 0], [-1, 2, -1, 0], [0, -1, 2, -1], [0, 0, -1, 1]]
    assert Graph(1, torch.zeros(0, 2, dtype=torch.int64)).distance((0,)).tolist() == [0]
    assert shell_sums(torch.ones(1, 4), graph, (1,)).tolist() == [[1, 2, 1]]
    assert len(reference_sites(graph, 3)) == 3


@pytest.mark.parametrize("box", [None, 3.0])
def test_positions_give_distances_and_edges(box):
    positions = torch.tensor(POINTS)

    def separation(i: int, j: int) -> float:
        images = [0.0] if box is None else [-box, 0.0, box]
        vectors = [positions[i] - positions[j] + torch.tensor([a, b]) for a in images for b in images]
        return min(float(vector.norm()) for vector in vectors)

    pairs = [[i, j] for i, j in itertools.combinations(range(6), 2) if separation(i, j) < 1.29]
    assert edges_within(positions, 1.29, box).tolist() == pairs
    graph = Graph(6, edges_within(positions, 1.29, box), positions, box)
    for site in range(6):
        expected = torch.tensor([separation(site, other) for other in range(6)])
        assert largest(graph.distance((site,), "euclidean") - expected) < 1e-12
    assert graph.ball((0,), 1, "euclidean").sum() == sum(separation(0, other) <= 1 for other in range(6))
    assert graph.centre() == ((2,) if box is None else (0,))


def test_many_positions_give_the_edges_of_few():
    positions = 20 * torch.rand(600, 2, generator=torch.Generator().manual_seed(0))
    near = (positions[:, None] - positions).norm(dim=2) < 1.1
    assert torch.equal(edges_within(positions, 1.1), near.triu(1).nonzero())


@pytest.mark.parametrize("space", [1, 2, 3])
def test_random_positions_keep_their_distance_and_their_density(space):
    positions = separated_positions(80, space, 0.6, generator=torch.Generator().manual_seed(5))
    box = 80 ** (1 / space)
    assert positions.shape == (80, space)
    assert 0 <= positions.min() <= positions.max() < box
    vectors = positions[:, None] - positions
    distances = (vectors - box * (vectors / box).round()).norm(dim=2)
    assert distances.fill_diagonal_(1.0).min() >= 0.6


def test_the_same_rule_at_every_size():
    teacher = st.teacher("gaussian-graph", seed=4)
    degrees = [2 * len(teacher.domain(size).edges) / size for size in (64, 256, 1024)]
    assert max(degrees) - min(degrees) < 0.5
    assert teacher.domain(64) is teacher.domain(64)
    again = st.teacher("gaussian-graph", seed=4).domain(64).positions
    assert torch.equal(teacher.domain(64).positions, again)
    assert not torch.equal(st.teacher("gaussian-graph", seed=5).domain(64).positions, again)


def test_a_random_system_is_a_sample_of_its_teacher_in_either_precision(generator):
    teacher = st.teacher("gaussian-graph")
    sample = teacher.sample(2, 64, generator=generator)
    assert sample.x.shape == (2, 1, 64)
    assert sample.x.dtype == torch.float32
    assert sample.context.domain.sites == 64
    x, sigma = sample.x, torch.ones(2)
    rough = teacher.smoothed_score(x, sigma.float(), sample.context)
    exact = teacher.double().smoothed_score(x.double(), sigma, sample.context)
    assert largest(rough - exact) < 1e-5
    for capability in (HasDensity, HasScore, HasSmoothedScore, HasPosterior, HasCovariance):
        assert isinstance(teacher, capability)


def build(fields: dict) -> GaussianGraphTeacher:
    return st.teacher("gaussian-graph", **fields)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"mass": 0}, SpecError, "mass"),
        ({"channels": 2, "coupling": [[1, 2], [2, 1]]}, SpecError, "the eigenvalue -1"),
        ({"edges": TREE, "positions": POINTS}, SpecError, "not both"),
        ({"sites": 4}, SpecError, "'sites' belongs to 'edges'"),
        ({"box": 4.0}, SpecError, "'box' belongs to 'positions'"),
        ({"edges": [[0, 1, 2]]}, SpecError, "edges.0"),
        ({"cutoff": 0}, SpecError, "cutoff"),
        ({"cutoff": float("inf")}, SpecError, "cutoff"),
        ({"positions": POINTS, "box": float("inf")}, SpecError, "box"),
        ({"separation": 0.9}, SpecError, "separation"),
        ({"components": "vector"}, SpecError, "channels = dim = 2"),
        ({"components": "vector", "edges": [[0, 1]]}, SpecError, "no displacements"),
        ({"components": "vector", "channels": 2, "coupling": [[2, 1], [1, 2]]}, SpecError, "no displacements"),
        ({"edges": []}, OracleError, "The graph is empty"),
        ({"edges": [], "sites": 3}, OracleError, "The graph is empty"),
        ({"edges": [[0, 1], [1, 3]], "sites": 3}, OracleError, "edges[1]"),
        ({"edges": [[0, 1], [1, -1]]}, OracleError, "[1, -1]"),
        ({"edges": [[0, 1], [1, 1]]}, OracleError, "joins a site to itself"),
        ({"edges": [[0, 1], [1, 2], [1, 0]]}, OracleError, "edges[2]"),
        ({"edges": [[0, 1], [2, 3]]}, OracleError, "[2, 3]"),
        ({"edges": [[0, 1]], "sites": 4}, OracleError, "not connected"),
        ({"positions": []}, OracleError, "The graph is empty"),
        ({"positions": POINTS, "cutoff": 0.1}, OracleError, "The graph is empty"),
        ({"positions": POINTS, "cutoff": 0.95}, OracleError, "not connected"),
        ({"positions": POINTS, "cutoff": 2.0, "box": 3.0}, OracleError, "reaches around"),
        ({"positions": [[0.0, 0.0], [1.0]]}, OracleError, "equally many"),
        ({"positions": [[0.0], [float("nan")]]}, OracleError, "not finite"),
        ({"cutoff": 0.7}, OracleError, "not connected"),
    ],
)
def test_wrong_graphs_are_refused_with_the_offending_item(fields, error, message):
    with pytest.raises(SizetransferError) as caught:
        build(fields)
    assert isinstance(caught.value, error)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "dim", "periodic"),
    [
        ({"edges": TREE}, 1, False),
        ({"positions": POINTS, "cutoff": 1.3}, 2, False),
        ({"positions": POINTS, "cutoff": 1.3, "box": 3.0}, 2, True),
        ({"positions": [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]}, 3, False),
        ({"preset": "disordered-volume"}, 3, True),
        ({"preset": "harmonic-crystal"}, 3, True),
    ],
)
def test_students_are_told_that_the_field_lives_on_a_graph(fields, dim, periodic):
    field = build(fields).field
    assert (field.geometry, field.dim, field.periodic) == ("graph", dim, periodic)
    assert st.teacher("gaussian").field.geometry == "lattice"
    with pytest.raises(SpecError, match=r"does not take fields on a graph(.|\n)*graph: best-linear, .*optimal-local"):
        st.student("cnn", field)
    with pytest.raises(SpecError, match="leave out the springs"):
        st.student("optimal-local", field, springs={})
    assert st.student("optimal-local", field, radius=1).radius == 1


def test_the_sites_of_a_graph_are_no_torus_that_a_radius_wraps_around():
    experiment = {
        "name": "graph",
        "teachers": {"graph": {"kind": "gaussian-graph"}},
        "students": {"r=6": {"kind": "optimal-local", "radius": 6}},
        "training": {"size": 12, "steps": 0},
        "evaluation": {"sizes": [12], "measures": {"clean-score": {"kind": "clean-score"}}},
    }
    assert plan(st.experiment(experiment).trials()).costs == {("graph", "r=6"): 0.0}
    lattice = {"torus": {"kind": "gaussian", "dim": 1}}
    with pytest.raises(SpecError, match="wraps around"):
        plan(st.experiment({**experiment, "teachers": lattice}).trials())


def test_a_lattice_student_is_not_asked_about_a_graph():
    with pytest.raises(SpecError, match="a graph of 2 dimensions"):
        st.diagnose(build({}), st.student("cnn", st.FieldInfo(dim=2, periodic=True)), sizes=(16,), sigmas=(1.0,))


def test_wrong_questions_are_refused():
    tree, random = build({"edges": TREE}), build({})
    with pytest.raises(OracleError, match="6, the sites of the given graph"):
        tree.sample(1, 7, generator=torch.Generator())
    with pytest.raises(OracleError, match="at least 11 sites"):
        random.domain(4)
    with pytest.raises(OracleError, match="does not fit"):
        tree.smoothed_score(torch.zeros(1, 1, 6, 6), torch.ones(1), tree.context(1, 6))
    with pytest.raises(OracleError, match="from 0 to 5"):
        tree.covariance(6, torch.tensor([6]))
    graph = tree.domain(6)
    for site in ((6,), (-1,), (0, 0)):
        with pytest.raises(OracleError, match="not in the graph"):
            graph.distance(site)
    with pytest.raises(OracleError, match="no positions"):
        graph.distance((0,), "euclidean")
    with pytest.raises(OracleError, match="positions do not fit"):
        Graph(2, torch.tensor([[0, 1]]), torch.zeros(3, 2))
    with pytest.raises(OracleError, match="The graph is empty"):
        Graph(2, torch.zeros(1, 2))
    with pytest.raises(OracleError, match="The box is full"):
        separated_positions(12, 1, 0.95, generator=torch.Generator().manual_seed(0))
