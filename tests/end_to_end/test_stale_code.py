"""No number outlives the code or the file that it came from: runs by the command line, in processes of their own."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from pathlib import Path

import fresh_process
import pytest
import torch
from safetensors.torch import save_file

import sizetransfer

NET = """
    from pathlib import Path
    import torch
    from safetensors.torch import load_file
    from mymod.layers import scaled

    class Net(torch.nn.Module):
        def __init__(self, weights):
            super().__init__()
            name = "".join(["py", "torch"])  # no literal: what torch.load opens is heard of
            parts = [torch.load(weights), torch.load(Path(__file__).with_name(name + ".pt"))]
            parts += [load_file("tensors.safetensors")["w"], torch.tensor(float(Path("number.txt").read_text()))]
            self.w = torch.nn.Parameter(sum(parts))

        def forward(self, x, sigma):
            return scaled(x, self.w) / (1 + sigma.reshape(-1, 1, 1) ** 2)
"""
LAYERS = "def scaled(x, w):\n    return w * x\n"
EXPERIMENT = """
    name: stale
    teachers: {field: {kind: gaussian, dim: 1, mass: 0.5}}
    students: {mine: {kind: module, factory: "mymod:Net", arguments: {weights: argument.pt}, radius: 0}}
    training: {size: 8, steps: STEPS, batch: 2}
    evaluation: {sizes: [8], measures: {error: {kind: clean-score, fields: 4}}}
"""


@pytest.fixture(scope="module")
def processes():
    return fresh_process.context()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def save(folder: Path, number: float) -> None:
    torch.save(torch.tensor([number], dtype=torch.float32), folder)


def project(folder: Path, steps: int) -> None:
    """Somebody's model in a package of theirs, with four files of weights that it loads in four ways."""
    write(folder / "mymod" / "__init__.py", "from mymod.net import Net\n")
    write(folder / "mymod" / "net.py", NET)
    write(folder / "mymod" / "layers.py", LAYERS)
    save(folder / "argument.pt", 0.1)
    save(folder / "mymod" / "pytorch.pt", 0.2)
    save_file({"w": torch.tensor([0.3], dtype=torch.float32)}, folder / "tensors.safetensors")
    write(folder / "number.txt", "0.1")
    write(folder / "stale.yaml", EXPERIMENT.replace("STEPS", str(steps)))


EDITS = {
    "mymod.net was changed": lambda at: write(at / "mymod" / "net.py", NET.replace("(1 + ", "(1.01 + ")),
    "mymod.layers was changed": lambda at: write(at / "mymod" / "layers.py", LAYERS.replace("w * x", "w * x / 2")),
    "the file argument.pt was changed": lambda at: save(at / "argument.pt", 0.3),
    "pytorch.pt was changed": lambda at: save(at / "mymod" / "pytorch.pt", 0.4),
    "the file tensors.safetensors was changed": lambda at: save_file(
        {"w": torch.tensor([0.5], dtype=torch.float32)}, at / "tensors.safetensors"
    ),
    "the file number.txt was changed": lambda at: write(at / "number.txt", "0.7"),
}


def error_of(run: Path) -> float:
    line = next(line for line in (run / "records.csv").read_text().splitlines() if ",relative_rmse," in line)
    return float(re.split(",relative_rmse,,|,relative_rmse,nan,|,relative_rmse,[^,]*,", line)[1].split(",")[0])


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 1], ids=["checkpoint", "trained"])
def test_code_and_weights_that_change_are_trained_and_measured_anew_and_named(processes, tmp_path, steps):
    def command() -> str:
        arguments = ["run", "stale.yaml", "--out", "out", "--executor", "serial", "--no-report"]
        code, output = fresh_process.command(processes, arguments, tmp_path)
        assert code == 0, output
        return output

    project(tmp_path, steps)
    assert "Reused" not in command()
    errors = [error_of(tmp_path / "out")]
    assert "Reused: 1 training and 1 measurement" in command()
    for words, edit in EDITS.items():
        edit(tmp_path)
        output = command()
        assert re.search(rf"Trained anew: field / mine / seed 0: \S*( \S*)*{re.escape(words)}\.", output), (
            words,
            output,
        )
        assert "Reused" not in output, (words, output)
        errors.append(error_of(tmp_path / "out"))
    assert len(set(errors)) == len(errors)
    output = command()
    assert "Reused: 1 training and 1 measurement" in output
    assert "Trained anew" not in output


PLUGIN = """
    from typing import Literal
    import torch
    from sizetransfer.registry.hooks import hookimpl
    from sizetransfer.contracts.specs import StudentSpec
    from sizetransfer.contracts.student import Student

    class Shrink(Student):
        def __init__(self, field):
            super().__init__(field, radius=0)
            self.w = torch.nn.Parameter(torch.tensor(0.5))
        def forward(self, x, sigma, context):
            return -self.w * x

    class ShrinkSpec(StudentSpec):
        kind: Literal["shrink"] = "shrink"
        def build(self, field):
            return Shrink(field)

    @hookimpl
    def register_students(register):
        register(ShrinkSpec)
"""


def editable(folder: Path, site: Path) -> None:
    """Install a plugin as ``pip install --editable`` does: metadata in one place, sources in another."""
    info = site / "sizetransfer_shrink-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: sizetransfer-shrink\nVersion: 1.0\n")
    write(info / "entry_points.txt", "[sizetransfer]\nmain = shrink_plugin\n")
    write(info / "RECORD", "__editable__.sizetransfer_shrink.pth,,\n")
    write(info / "direct_url.json", json.dumps({"url": folder.as_uri(), "dir_info": {"editable": True}}))
    write(folder / "shrink_plugin.py", PLUGIN)


@pytest.mark.slow
def test_student_of_an_editable_plugin_is_trained_anew_when_it_is_edited(processes, tmp_path):
    sources, site = tmp_path / "sources", tmp_path / "site-packages"
    editable(sources, site)
    student = "students: {mine: {kind: shrink}}\n    training: {size: 8, steps: 1, batch: 2}"
    text = re.sub(r"students:.*\n.*", student, EXPERIMENT)
    write(tmp_path / "stale.yaml", text)

    def command() -> str:
        arguments = ["run", "stale.yaml", "--out", "out", "--executor", "serial", "--no-report"]
        code, output = fresh_process.command(processes, arguments, tmp_path, site, sources)
        assert code == 0, output
        return output

    command()
    before = error_of(tmp_path / "out")
    assert "Reused: 1 training" in command()
    write(sources / "shrink_plugin.py", PLUGIN.replace("-self.w * x", "-self.w * x / 2"))
    assert "Trained anew: field / mine / seed 0: shrink_plugin was changed." in command()
    assert error_of(tmp_path / "out") != before


@pytest.mark.slow
def test_an_edit_of_the_report_retrains_nothing_and_one_of_the_training_does(processes, tmp_path):
    copy = tmp_path / "copy" / "sizetransfer"
    shutil.copytree(Path(sizetransfer.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = re.sub(r"students:.*", "students: {mine: {kind: cnn, blocks: 1, width: 4, radius: 3}}", EXPERIMENT)
    write(tmp_path / "stale.yaml", text.replace(", radius: 3", "").replace("STEPS", "1").replace("size: 8", "size: 16"))

    def command() -> str:
        arguments = ["run", "stale.yaml", "--out", "out", "--executor", "serial", "--no-report"]
        code, output = fresh_process.command(processes, arguments, tmp_path, copy.parent)
        assert code == 0, output
        return output

    def edit(name: str) -> None:
        path = copy / name
        path.write_text(path.read_text() + "\nEDITED = True\n")

    assert "Reused" not in command()
    edit("report/page.py")
    edit("cli/console.py")
    edit("cli/run_commands.py")
    edit("runs/ledger.py")
    edit("runs/evidence.py")
    assert "Reused: 1 training and 1 measurement" in command()
    edit("scores/training.py")
    output = command()
    assert "Trained anew: field / mine / seed 0: sizetransfer.scores.training was changed." in output
    edit("measures/clean_score.py")
    output = command()
    assert "Reused: 1 training and 0 measurements" in output
