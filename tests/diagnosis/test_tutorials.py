"""The tutorials run, what their text claims holds, and their dictionary of phi^4 is right."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sizetransfer as st

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "tutorials"
PAGES = ("transfers", "radius-limited", "long-ranged")


@pytest.fixture(scope="module")
def executed():
    sys.path.insert(0, str(DOCS / "ext"))
    yield importlib.import_module("executed")
    sys.path.remove(str(DOCS / "ext"))


@pytest.fixture(scope="module")
def modules():
    """Modules of the tutorials by name."""
    sys.path.insert(0, str(FOLDER))
    names = ("hopping", "dictionary")
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(FOLDER))
    for name in names:
        del sys.modules[name]


# --- the pages --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs_and_its_claims_hold(executed, tmp_path, name) -> None:
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    text = executed.Tutorial(FOLDER, tmp_path).run(page)
    assert "{{" not in text
    assert "holds:" not in text
    pictures = [picture for _, picture in executed.PICTURE.findall(page)]
    assert pictures
    assert all((tmp_path / picture).stat().st_size > 10_000 for picture in pictures)


def test_every_tutorial_is_tried_and_listed() -> None:
    written = {path.stem for path in FOLDER.glob("*.md")} - {"index"}
    assert written == set(PAGES)
    assert all(name in (FOLDER / "index.md").read_text(encoding="utf-8") for name in PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_no_number_of_a_result_is_typed(name) -> None:
    """A value with its error stands in the text as an expression only."""
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$|\{\{.*?\}\}", "", page, flags=re.DOTALL | re.MULTILINE)
    assert "±" not in prose


# --- what runs them ---------------------------------------------------------------------------------------------------


def test_blocks_share_names_and_print_below_themselves(executed, tmp_path) -> None:
    page = "```python\na = 2\n```\n\n```python\nprint(a + 1)\n```\n\nIt is {{ a }}."
    text = executed.Tutorial(FOLDER, tmp_path).run(page)
    assert text == "```python\na = 2\n```\n\n```python\nprint(a + 1)\n```\n\n```text\n3\n```\n\nIt is 2."


def test_a_file_is_written_and_a_command_that_fails_is_not_passed_over(executed, tmp_path) -> None:
    text = executed.Tutorial(FOLDER, tmp_path).run("```yaml\n# a.yaml\nname: a\n```\n\n```console\n$ cat a.yaml\n```")
    assert text.endswith("```text\nname: a\n```")
    with pytest.raises(RuntimeError, match="does not exist"):
        executed.Tutorial(FOLDER, tmp_path).run("```console\n$ sizetransfer diagnose --data nowhere.npy\n```")


def test_a_claim_that_is_not_true_is_an_error(executed, tmp_path) -> None:
    page = "```python\nword = 'undecided'\n```\n<!-- holds: word == 'transfers' -->"
    with pytest.raises(executed.ClaimError, match="transfers"):
        executed.Tutorial(FOLDER, tmp_path).run(page)


# --- phi^4 in hopping form --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kappa", "coupling"), [(0.22, 0.022), (0.27, 0.022), (0.18, 1.0), (0.2, 0.0)])
def test_actions_differ_by_a_constant(modules, kappa, coupling) -> None:
    hopping, dictionary = modules["hopping"], modules["dictionary"]
    phi = np.random.default_rng(3).normal(size=(32, 6, 6))
    teacher = st.teacher("phi4", **dictionary.teacher_couplings(kappa, coupling)).double()
    ours = torch.from_numpy(phi[:, None]) * dictionary.field_factor(kappa)
    off = teacher.energy(st.Sample(ours, teacher.context(32, 6))) - torch.from_numpy(
        hopping.action(phi, kappa, coupling)
    )
    torch.testing.assert_close(off, torch.full_like(off, -coupling * 36))


def test_a_dictionary_without_the_factor_of_the_field_is_caught(modules) -> None:
    hopping, dictionary = modules["hopping"], modules["dictionary"]
    phi = np.random.default_rng(3).normal(size=(32, 6, 6))
    teacher = st.teacher("phi4", **dictionary.teacher_couplings(0.22, 0.022)).double()
    off = teacher.energy(st.Sample(torch.from_numpy(phi[:, None]), teacher.context(32, 6))).numpy()
    assert np.std(off - hopping.action(phi, 0.22, 0.022)) > 1


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("kappa", "coupling"), [(0.22, 0.022), (0.18, 1.0), (0.12, 0.0)])
def test_the_way_back(modules, kappa, coupling, dim) -> None:
    dictionary = modules["dictionary"]
    back = dictionary.hopping_couplings(**dictionary.teacher_couplings(kappa, coupling, dim), dim=dim)
    assert back == pytest.approx((kappa, coupling), rel=1e-9, abs=1e-12)


def test_metropolis_keeps_the_law(modules) -> None:
    """At kappa = 0 sites are independent: the second moment is an integral."""
    kappa, coupling = 0.0, 0.5
    fields = modules["hopping"].metropolis(256, 8, kappa, coupling, 60, seed=5)
    grid = np.linspace(-6, 6, 4001)
    weight = np.exp(-(grid**2) - coupling * (grid**2 - 1) ** 2)
    exact = (grid**2 * weight).sum() / weight.sum()
    squares = np.square(fields.astype(float)).mean((1, 2))
    assert abs(squares.mean() - exact) < 4 * squares.std() / np.sqrt(len(squares))


def test_metropolis_agrees_with_the_teachers_own_chains(modules) -> None:
    """Site variance and covariance of neighbours, within four standard errors of the difference."""
    hopping, dictionary = modules["hopping"], modules["dictionary"]
    kappa, coupling = 0.22, 0.022
    teacher = st.teacher("phi4", **dictionary.teacher_couplings(kappa, coupling))
    exact = teacher.sample(128, 8, generator=torch.Generator().manual_seed(7)).x[:, 0].numpy()
    ours = dictionary.field_factor(kappa) * hopping.metropolis(512, 8, kappa, coupling, 100, seed=7)
    for step in (0, 1):
        first, second = ((x * np.roll(x, step, 1)).mean((1, 2), dtype=float) for x in (exact, ours))
        error = np.hypot(first.std() / np.sqrt(len(first)), second.std() / np.sqrt(len(second)))
        assert abs(first.mean() - second.mean()) < 4 * error
