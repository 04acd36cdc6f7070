"""Students on graphs: what they hear, how they turn with the positions, and what they refuse."""

from __future__ import annotations

import copy
import gc
import weakref
from functools import lru_cache

import pytest
import torch
from tolerances import TOLERANCE, assert_rounding
from torch import Tensor

import sizetransfer as st
from sizetransfer.contracts.domain import Domain, Graph, Lattice, edges_within
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.contracts.student import Student

pytest.importorskip("sizetransfer_graph", reason="the distribution sizetransfer-graph is not installed")

ROUNDING = TOLERANCE["score"]
KINDS = ("message-passing", "equivariant")
SMALL = {"message-passing": {"width": 8}, "equivariant": {"irreps": "4x0e + 2x0o + 3x1o + 2x2e", "width": 6}}


def field(dim: int = 3, channels: int = 1, **fields: object) -> st.FieldInfo:
    return st.FieldInfo(geometry="graph", dim=dim, channels=channels, periodic=False, **fields)


@lru_cache(maxsize=64)
def build(kind: str, info: st.FieldInfo, **fields: object) -> Student:
    """A student whose every parameter is moved at random, in float64; built once, and left as it is."""
    student = st.student(kind, info, **{"depth": 2, **SMALL[kind], **fields})
    with torch.no_grad():
        for number, parameter in enumerate(student.parameters()):
            parameter.add_(0.3 * normal(parameter.shape, generator=stream("stir", number), like=parameter))
    return student.double().eval()


def cloud(count: int = 24, dim: int = 3) -> Graph:
    """Sites in open space, joined where they are near."""
    spread = count ** (1 / dim)
    positions = spread * torch.rand(count, dim, generator=stream("cloud", count, dim))
    return Graph(count, edges_within(positions, 2.0), positions)


def noisy(info: st.FieldInfo, domain: Domain, batch: int = 2) -> tuple[Tensor, Tensor]:
    x = normal((batch, info.channels, *domain.shape), generator=stream("x"), like=torch.zeros(()))
    return x, torch.linspace(0.2, 0.7, batch)


def rotation(dim: int, seed: int) -> Tensor:
    matrix, _ = torch.linalg.qr(torch.randn(dim, dim, generator=stream("rotation", seed)))
    matrix[:, 0] *= torch.linalg.det(matrix).sign()
    return matrix


def moved(graph: Graph, matrix: Tensor) -> Graph:
    assert graph.positions is not None
    return Graph(graph.count, graph.edges, graph.positions @ matrix.T)


def turn(x: Tensor, matrix: Tensor, info: st.FieldInfo) -> Tensor:
    return torch.einsum("ij,bjn->bin", matrix, x) if info.components == "vector" else x


FIELDS = {
    "vector in space": field(3, 3, components="vector"),
    "scalars in space": field(3, 2),
    "vector in the plane": field(2, 2, components="vector"),
    "vector with conditions": field(3, 3, components="vector", condition_channels=2),
}


def unlike(student: Student, info: st.FieldInfo, matrix: Tensor) -> float:
    """How far the score of the turned field is from the turned score, as a share of the largest."""
    graph = cloud(dim=info.dim)
    x, sigma = noisy(info, graph)
    labels = torch.ones(2, info.condition_channels, graph.count) if info.condition_channels else None
    with torch.no_grad():
        score = student(x, sigma, Context(graph, labels))
        turned = student(turn(x, matrix, info), sigma, Context(moved(graph, matrix), labels))
    return float((turned - turn(score, matrix, info)).abs().max() / score.abs().max())


@pytest.mark.parametrize("name", FIELDS)
def test_scores_turn_and_reflect_with_the_positions(name: str) -> None:
    info = FIELDS[name]
    student = build("equivariant", info)
    for seed in range(3):
        matrix = rotation(info.dim, seed)
        assert unlike(student, info, matrix) < ROUNDING[torch.float64]
        assert unlike(student, info, -matrix) < ROUNDING[torch.float64]


def test_message_passing_does_not_turn() -> None:
    """The control of the test above, and the difference between the two students."""
    info = FIELDS["vector in space"]
    assert unlike(build("message-passing", info), info, rotation(3, 0)) > 1e-3


def test_vectors_taken_for_scalars_do_not_turn() -> None:
    student = build("equivariant", field(3, 3))
    assert unlike(student, FIELDS["vector in space"], rotation(3, 0)) > 1e-3


def test_a_student_built_in_single_precision_turns_to_the_rounding_of_double() -> None:
    info = FIELDS["vector in space"]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        student = build("equivariant", info, harmonics=3)
    finally:
        torch.set_default_dtype(before)
    assert unlike(student, info, rotation(3, 1)) < ROUNDING[torch.float64]
    weights = {name: value.float() for name, value in student.state_dict().items()}
    student.load_state_dict(weights)
    assert unlike(student, info, rotation(3, 1)) < ROUNDING[torch.float64]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vector in space", "scalars in space", "vector in the plane"])
def test_scores_do_not_know_where_the_origin_is_nor_how_sites_are_numbered(kind: str, name: str) -> None:
    info = FIELDS[name]
    graph, student = cloud(dim=info.dim), build(kind, info)
    x, sigma = noisy(info, graph)
    order = torch.randperm(graph.count, generator=stream("order"))
    place = order.argsort()
    other = Graph(graph.count, place[graph.edges].flip(0), graph.positions[order] + 3.7)
    with torch.no_grad():
        score = student(x, sigma, Context(graph))
        renamed = student(x[..., order], sigma, Context(other))
    assert_rounding(renamed, score[..., order])


def test_in_a_periodic_box_only_displacements_count() -> None:
    teacher = st.teacher("gaussian-graph", preset="harmonic-crystal")
    graph = teacher.domain(40)
    student = build("equivariant", teacher.field)
    x, sigma = noisy(teacher.field, graph)
    shifted = Graph(40, graph.edges, (graph.positions + 1.3) % graph.box, graph.box)
    # A permutation of the axes maps the box to itself.
    matrix = torch.eye(3)[[1, 2, 0]]
    turned = Graph(40, graph.edges, graph.positions @ matrix.T, graph.box)
    with torch.no_grad():
        score = student(x, sigma, Context(graph))
        after_shift = student(x, sigma, Context(shifted))
        after_turn = student(turn(x, matrix, teacher.field), sigma, Context(turned))
    assert_rounding(after_shift, score)
    assert_rounding(after_turn, turn(score, matrix, teacher.field))


DOMAINS = {
    "graph": (field(3, 2), cloud(40)),
    "edges alone": (field(1), Graph(9, torch.tensor([[site, site + 1] for site in range(8)]))),
    "torus": (st.FieldInfo(dim=2), Lattice((7, 8), periodic=True)),
    "box": (st.FieldInfo(dim=2, periodic=False), Lattice((7, 6), periodic=False)),
    "cylinder": (
        st.FieldInfo(dim=2, periodic=False, closed=(False, True)),
        Lattice((6, 8), periodic=False, closed=(False, True)),
    ),
    "line": (st.FieldInfo(dim=1), Lattice((9,), periodic=True)),
    "volume": (st.FieldInfo(dim=3, channels=3, components="vector"), Lattice((6, 5, 5), periodic=True)),
}
WHERE = [(kind, name) for kind in KINDS for name in DOMAINS if (kind, name) != ("equivariant", "edges alone")]


@pytest.mark.parametrize(("kind", "name"), WHERE)
def test_a_score_hears_exactly_the_sites_within_depth(kind: str, name: str) -> None:
    info, domain = DOMAINS[name]
    student = build(kind, info)
    x, sigma = noisy(info, domain, batch=1)
    x.requires_grad_()
    site = domain.centre()
    score = student(x, sigma, Context(domain))
    heard = torch.zeros(domain.shape, dtype=torch.bool)
    for channel in range(info.channels):
        (row,) = torch.autograd.grad(score[(0, channel, *site)], x, retain_graph=True)
        heard |= (row[0] != 0).any(0)
    assert student.radius == 2
    assert torch.equal(heard, domain.ball(site, 2))


@pytest.mark.parametrize(("kind", "name"), WHERE)
def test_new_students_are_the_score_of_white_noise_and_rows_do_not_mix(kind: str, name: str) -> None:
    info, domain = DOMAINS[name]
    x, sigma = noisy(info, domain, batch=3)
    white = -x / (sigma**2 + info.sigma_data**2).reshape(3, *(1,) * (x.ndim - 1))
    new = st.student(kind, info, depth=1, width=2)
    torch.testing.assert_close(new(x, sigma, Context(domain)), white)
    student = build(kind, info)
    together = student(x, sigma, Context(domain))
    alone = torch.cat([student(x[row : row + 1], sigma[row : row + 1], Context(domain)) for row in range(3)])
    assert_rounding(together, alone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "steps"), [("torus", (2, 3)), ("cylinder", (0, 3))])
def test_a_score_moves_with_the_field_along_closed_axes(kind: str, name: str, steps: tuple[int, int]) -> None:
    info, domain = DOMAINS[name]
    student = build(kind, info)
    x, sigma = noisy(info, domain)
    moved_score = student(x.roll(steps, (2, 3)), sigma, Context(domain))
    expected = student(x, sigma, Context(domain)).roll(steps, (2, 3))
    assert_rounding(moved_score, expected)
    if name == "cylinder":
        along = student(x.roll(2, 2), sigma, Context(domain)).roll(-2, 2).roll(steps, (2, 3))
        assert not torch.allclose(along, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_the_edges_give_the_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("graph", "torus"):
        info, domain = DOMAINS[name]
        student = build(kind, info)
        x, sigma = noisy(info, domain)
        whole = student(x, sigma, Context(domain))
        monkeypatch.setattr("sizetransfer_graph.edges.EDGES_AT_A_TIME", 14)
        with torch.no_grad():
            pieces = student(x, sigma, Context(domain))
        monkeypatch.undo()
        assert_rounding(pieces, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_the_condition_is_seen_and_dead_sites_are_not(kind: str) -> None:
    info, graph = field(3, 1, condition_channels=1), cloud(24)
    student, deaf = build(kind, info), build(kind, info, condition="none")
    x, sigma = noisy(info, graph)
    mask = torch.rand(2, 1, 24, generator=stream("mask")) < 0.7
    zeros, ones = torch.zeros(2, 1, 24), torch.ones(2, 1, 24)
    assert (student(x, sigma, Context(graph, zeros)) - student(x, sigma, Context(graph, ones))).abs().max() > 1e-3
    assert torch.equal(deaf(x, sigma, Context(graph, zeros)), deaf(x, sigma, Context(graph, ones)))
    score = student(x, sigma, Context(graph, zeros, mask))
    assert not score[~mask].any()
    assert torch.equal(score, student(torch.where(mask, x, 9.0), sigma, Context(graph, zeros, mask)))
    with pytest.raises(OracleError, match="condition channels"):
        student(x, sigma, Context(graph))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_either_precision_and_copies(kind: str, dtype: torch.dtype) -> None:
    info, graph = field(3, 3, components="vector"), cloud(24)
    student = copy.deepcopy(build(kind, info)).to(dtype)
    x, sigma = (value.to(dtype) for value in noisy(info, graph))
    score = student(x, sigma, Context(graph))
    assert score.dtype == dtype
    exact = build(kind, info)(x.double(), sigma.double(), Context(graph)).detach()
    torch.testing.assert_close(score.double(), exact, rtol=0, atol=ROUNDING[dtype] * float(exact.abs().max()))
    assert torch.equal(copy.deepcopy(student)(x, sigma, Context(graph)), score)


def test_edges_are_kept_for_as_long_as_the_graph_lives() -> None:
    from sizetransfer_graph import edges

    graph, info = cloud(24), field(3)
    student = build("message-passing", info)
    x, sigma = noisy(info, graph)
    student(x, sigma, Context(graph))
    kept = edges.edges_of(graph, info, like=x, positions=True)
    assert edges.edges_of(graph, info, like=x, positions=True) is kept
    gone = weakref.ref(graph)
    del graph
    gc.collect()
    assert gone() is None
    assert all(other.count > 0 for other in edges._graphs)


@pytest.mark.parametrize(
    ("kind", "info", "fields", "message"),
    [
        ("equivariant", field(3, 3, components="vector"), {"irreps": "16x0e + 4x2e"}, "some 1o"),
        ("equivariant", field(3, 3, components="vector"), {"irreps": "16x0e + 4x1e"}, "some 1o"),
        ("equivariant", field(3), {"irreps": "4x1o"}, "some 0e"),
        ("equivariant", field(3), {"irreps": "4 of 1o"}, "cannot be read"),
        ("equivariant", field(3), {"irreps": ""}, "some 0e"),
        ("message-passing", st.FieldInfo(dim=4), {}, "1, 2 or 3"),
        ("message-passing", field(3), {"depth": 0}, "greater than or equal to 1"),
        ("equivariant", field(3), {"reach": 0.0}, "greater than 0"),
    ],
)
def test_what_cannot_be_built_is_refused(
    kind: str, info: st.FieldInfo, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        st.student(kind, info, **fields)


@pytest.mark.parametrize("kind", KINDS)
def test_domains_that_do_not_fit_are_refused(kind: str) -> None:
    def ask(info: st.FieldInfo, domain: Domain) -> None:
        x, sigma = noisy(info, domain)
        build(kind, info)(x, sigma, Context(domain))

    with pytest.raises(OracleError, match="has no neighbour"):
        ask(field(3), Graph(1, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(1, 3)))
    with pytest.raises(OracleError, match="another space"):
        ask(field(2), cloud(24))
    with pytest.raises(OracleError, match="not of the sort"):
        ask(field(3), Lattice((4, 4, 4), periodic=False))
    with pytest.raises(OracleError, match="not of the sort"):
        ask(st.FieldInfo(dim=2), Lattice((4, 4), periodic=False))
    with pytest.raises(OracleError, match="has no neighbour"):
        ask(st.FieldInfo(dim=1, periodic=False), Lattice((1,), periodic=False))
    x, sigma = noisy(field(3, 3), cloud(24))
    with pytest.raises(OracleError, match="2 channels"):
        build(kind, field(3, 2))(x, sigma, Context(cloud(24)))


def test_a_graph_of_edges_alone_is_for_message_passing() -> None:
    info, domain = DOMAINS["edges alone"]
    x, sigma = noisy(info, domain)
    with pytest.raises(OracleError, match=r"no positions(.|\n)*message-passing"):
        build("equivariant", info)(x, sigma, Context(domain))
