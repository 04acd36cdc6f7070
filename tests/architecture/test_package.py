"""``import sizetransfer``: lazy, complete, without side effects; and the short interface."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest
import torch

import sizetransfer as st
from sizetransfer.contracts.errors import SpecError

STATE = """
import random, sys
import numpy
import torch

def state():
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "interop threads": torch.get_num_interop_threads(),
        "random numbers": torch.get_rng_state().tolist(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "deterministic cudnn": torch.backends.cudnn.deterministic,
        "precision": torch.get_float32_matmul_precision(),
        "validation": torch.distributions.Distribution._validate_args,
        "numpy": numpy.random.get_state()[1].tolist(),
        "random": random.getstate(),
        "printing": repr(torch.arange(3) / 3),
        "recursion": sys.getrecursionlimit(),
        "excepthook": sys.excepthook,
    }

before = state()
import sizetransfer
for name in sizetransfer.__all__:
    getattr(sizetransfer, name)
after = state()
assert before == after, [name for name in before if before[name] != after[name]]
assert sizetransfer.student.__module__ == "sizetransfer.api.kinds", "a module hides the function"
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)


def test_importing_it_imports_nothing_heavy() -> None:
    finished = run("import sys, sizetransfer; print([m for m in ('torch', 'pydantic', 'pandas') if m in sys.modules])")
    assert (finished.stdout, finished.stderr) == ("[]\n", "")


@pytest.mark.slow
def test_importing_everything_leaves_global_state_alone_and_prints_nothing() -> None:
    finished = run(STATE)
    assert finished.returncode == 0, finished.stderr
    assert (finished.stdout, finished.stderr) == ("", "")


def test_every_public_name_is_there() -> None:
    for name in st.__all__:
        assert getattr(st, name) is not None
    assert set(st.__all__) <= set(dir(st))
    assert set(st.__all__) - {"__version__"} == {name for names in st._MODULES.values() for name in names}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'teachr'"):
        _ = st.teachr  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", ["report", "runs", "systems.hard_valid", "systems.ising"])
def test_every_lazy_name_of_a_package_is_there(package: str) -> None:
    module = importlib.import_module(f"sizetransfer.{package}")
    assert set(module.__all__) <= {name for names in module._MODULES.values() for name in names}
    for names in module._MODULES.values():
        for name in names:
            assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module 'sizetransfer.{package}' has no attribute 'nmae'"):
        _ = module.nmae


def test_no_module_has_the_name_of_a_public_function() -> None:
    modules = {module.name for module in pkgutil.iter_modules(st.__path__)}
    assert not modules & set(st.__all__)


def test_the_version_is_that_of_the_distribution() -> None:
    assert st.__version__ == importlib.import_module("sizetransfer.registry.plugins").core_version()


def test_teachers_and_students_are_built_by_kind() -> None:
    teacher = st.teacher("flow", preset="short-range-simple", seed=1)
    student = st.student("cnn", teacher.field, blocks=1, seed=2)
    assert isinstance(teacher, st.Teacher)
    assert isinstance(student, st.Student)
    assert student.radius == 4


def test_initial_weights_depend_on_the_seed_alone() -> None:
    field = st.FieldInfo(dim=2)

    def weights(seed: int) -> torch.Tensor:
        student = st.student("cnn", field, blocks=1, seed=seed)
        return torch.cat([parameter.detach().flatten() for parameter in student.parameters()])

    before = torch.get_rng_state()
    first = weights(0)
    torch.rand(3)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)
    torch.set_rng_state(before)
    weights(5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: st.teacher("flwo"), "Did you mean 'flow'"),
        (lambda: st.teacher("flow", pre_flow_dept=1), "pre_flow_depth"),
        (lambda: st.student("cnn", st.FieldInfo(dim=2), blocks="many"), "cnn.blocks"),
        (lambda: st.student("cnn", st.teacher("gaussian")), "pass teacher.field"),
        (lambda: st.measure("clean-scroe"), "Did you mean 'clean-score'"),
        (lambda: st.load("quickstrat"), "Did you mean 'quickstart'"),
        (lambda: st.experiment({"nmae": "x"}), "Did you mean 'name'"),
    ],
)
def test_wrong_names_and_values_are_refused(call, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        call()
    assert message in str(caught.value)
