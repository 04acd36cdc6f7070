"""Weights of files into modules, and factories beside the working directory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

import sizetransfer as st
from sizetransfer.contracts.errors import SpecError
from sizetransfer.students.wrapped import ModuleSpec, load_weights

FIELD = st.FieldInfo(dim=1)


def net(seed: int = 0, width: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv1d(1, width, 3), nn.Conv1d(width, 1, 3)).double()


def equal(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def prefixed(module: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in module.state_dict().items()}


FORMS = {
    "plain": (lambda m: m.state_dict(), ()),
    "data-parallel": (lambda m: prefixed(m, "module."), ("prefix 'module.' left out",)),
    "compiled": (lambda m: prefixed(m, "_orig_mod."), ("prefix '_orig_mod.' left out",)),
    "both": (lambda m: prefixed(m, "module._orig_mod."), ("prefix 'module.' left out", "prefix '_orig_mod.' left out")),
    "averaged": (lambda m: AveragedModel(m).state_dict(), ("prefix 'module.' left out",)),
    "trainer": (lambda m: {"step": 3, "model": m.state_dict()}, ("taken from the entry 'model'",)),
    "trainer with average": (
        lambda m: {"model": net(5).state_dict(), "ema": m.state_dict()},
        ("taken from the entry 'ema'",),
    ),
    "average behind a prefix": (
        lambda m: {**prefixed(net(5), "model."), **prefixed(m, "ema_model.")},
        ("averaged weights, prefix 'ema_model.' left out",),
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_every_usual_form_is_read_and_said(form: str, suffix: str, tmp_path) -> None:
    make, said = FORMS[form]
    content = make(net(1))
    if suffix == "safetensors":
        if not all(isinstance(value, torch.Tensor) for value in content.values()):
            return
        save_file({name: value.clone() for name, value in content.items()}, tmp_path / "w.safetensors")
    else:
        torch.save(content, tmp_path / "w.pt")
    target = net(2)
    assert load_weights(target, tmp_path / f"w.{suffix}") == said
    assert equal(target, net(1))


def test_a_compiled_module_takes_the_weights_of_the_original(tmp_path) -> None:
    save_file(net(1).state_dict(), tmp_path / "w.safetensors")
    target = net(2)
    compiled = nn.Module()  # what torch.compile returns holds the original by this name
    compiled._orig_mod = target
    load_weights(compiled, tmp_path / "w.safetensors")
    assert equal(target, net(1))


def test_the_two_forms_of_weight_norm_are_one(tmp_path) -> None:
    new = nn.Sequential(parametrizations.weight_norm(nn.Conv1d(1, 1, 3)))
    names = {"original0": "weight_g", "original1": "weight_v"}
    old = {
        next((f"0.{o}" for n, o in names.items() if name.endswith(n)), name): value + 1
        for name, value in new.state_dict().items()
    }
    torch.save(old, tmp_path / "w.pt")
    assert load_weights(new, tmp_path / "w.pt") == ("weight_norm written in its other form",)
    assert torch.equal(new.state_dict()["0.parametrizations.weight.original1"], old["0.weight_v"])


class Code:
    def __reduce__(self):
        return print, ("run",)


REFUSED = {
    "code": (lambda path: torch.save({"weights": Code()}, path), "pickle that runs code"),
    "whole module": (lambda path: torch.save(net(), path), "pickle that runs code"),
    "shape": (lambda path: torch.save(net(0, 3).state_dict(), path), r"3 of another shape: 0.weight \(3, 1, 3\) for"),
    "missing": (lambda path: torch.save({"0.weight": net()[0].weight}, path), "3 missing: 0.bias"),
    "unexpected": (lambda path: torch.save({**net().state_dict(), "2.bias": torch.ones(1)}, path), "1 unexpected: 2.b"),
    "list": (lambda path: torch.save([torch.ones(1)], path), "got:      list"),
    "text": (lambda path: path.write_text("weights"), "cannot be read"),
    "none": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case: str, tmp_path, capsys) -> None:
    write, message = REFUSED[case]
    write(tmp_path / "w.pt")
    target, before = net(2), net(2)
    with pytest.raises(SpecError, match=message):
        load_weights(target, tmp_path / "w.pt")
    assert equal(target, before)
    assert not capsys.readouterr().out


def test_pickles_by_their_suffix_are_refused(tmp_path) -> None:
    (tmp_path / "w.pkl").write_bytes(b"")
    with pytest.raises(SpecError, match=r"got:      \.pkl"):
        load_weights(net(), tmp_path / "w.pkl")


FACTORY = "from torch import nn\ndef build(width):\n    return nn.Conv1d(1, 1, 2 * width + 1)\n"


EXPERIMENT = """
name: mine
training: {size: 8, steps: 1}
evaluation: {sizes: [8], measures: {clean: {kind: clean-score}}}
teachers: {g: {kind: gaussian, dim: 1}}
students: {mine: {kind: module, factory: "factory_beside:build", arguments: {width: 2}}}
"""


def test_weights_and_tables_decide_what_a_training_is_known_by(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("w.pt", "bar.npy"):
        (tmp_path / name).write_bytes(b"")
    spec = ModuleSpec.parse({"factory": "torch.nn:Identity", "weights": "w.pt", "timestep": "bar.npy", "process": "vp"})
    assert {path.name for path in spec.reads()} == {"w.pt", "bar.npy"}
    assert ModuleSpec.parse(spec.to_json()) == spec


@pytest.mark.parametrize("where", ["working directory", "experiment"])
def test_a_factory_beside_is_found_without_a_path(where: str, tmp_path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "factory_beside.py").write_text(FACTORY)
    (tmp_path / "code" / "mine.yaml").write_text(EXPERIMENT)
    code = "import sizetransfer as st\n"
    if where == "working directory":
        code += (
            "spec = st.student('module', st.FieldInfo(dim=1), factory='factory_beside:build', arguments={'width': 2})"
        )
    else:
        code += "st.load('code/mine.yaml').students['mine'].build(st.FieldInfo(dim=1))"
    place = tmp_path / "code" if where == "working directory" else tmp_path
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=place, capture_output=True, text=True, check=False, timeout=100
    )
    assert not done.returncode, done.stderr
