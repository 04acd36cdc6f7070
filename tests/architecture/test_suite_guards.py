"""The suite's own guards catch what they are there for: broken objects must fail."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from sizetransfer.contracts.noise import fourier_features, perturb
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.student import Student

pytest_plugins = ["pytester"]


def test_shapes_are_checked_at_run_time(generator):
    with pytest.raises(Exception, match=r"(?i)type-check"):
        fourier_features(torch.ones(2, 3), 4)
    with pytest.raises(Exception, match=r"(?i)type-check"):
        perturb(torch.zeros(2, 1, 4, 4), torch.ones(3), generator=generator)


def test_default_dtype_is_double_and_one_thread():
    assert torch.zeros(1).dtype == torch.float64
    assert torch.get_num_threads() == 1


def test_examples_are_repeatable():
    assert settings().derandomize
    assert settings().deadline is None


def test_abstract_student_cannot_be_built():
    with pytest.raises(TypeError, match="forward"):
        Student(FieldInfo(dim=2), radius=1)


CARELESS = """
import pytest
import torch

@pytest.mark.parametrize("change", [
    lambda: torch.set_default_dtype(torch.float32),
    lambda: torch.set_num_threads(2),
    lambda: torch.use_deterministic_algorithms(True),
    lambda: torch.set_grad_enabled(False),
])
def test_careless(change):
    assert torch.zeros(1).dtype == torch.float64 and torch.is_grad_enabled()
    change()

def test_random_numbers_may_be_drawn():
    torch.rand(3)
"""


def test_changed_global_state_fails_the_test_that_changed_it(pytester, request):
    tests = request.config.rootpath / "tests"
    pytester.makeconftest((tests / "conftest.py").read_text())
    pytester.syspathinsert(tests / "support")
    pytester.makepyfile(CARELESS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=5, errors=4)
    result.stdout.fnmatch_lines(["*the test changed torch's global state*"])
