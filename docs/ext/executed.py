"""Runs the tutorials while the documentation is built: what they show, draw and say comes out of their own code.

On a page of ``docs/tutorials`` blocks are taken from the top, in one fresh folder that also has the folder's Python
files:

- ````` ```python ````` is run; what it prints follows it.
- ````` ```console ````` has one command after ``$``; what it prints follows it. ``cat`` shows a file.
- ````` ```yaml ````` whose first line is ``# name.yaml`` is written to that file.
- ``{{ expression }}`` in the text becomes what Python says of it there; :func:`shown` and others are at hand.
- ``<!-- holds: expression -->`` is a claim of the text: the build fails where it is not true.
- ``![...](name.png)`` shows a picture that the code drew.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sphinx.application import Sphinx

    from sizetransfer.contracts.quantity import Quantity
    from sizetransfer.contracts.records import Measurement
    from sizetransfer.diagnosis.from_data import DataDiagnosis

FOLDER = "tutorials"
PART = re.compile(
    r"^```(?P<language>python|console|yaml)\n(?P<code>.*?)^```$|\{\{ (?P<said>.+?) \}\}|<!-- holds: (?P<claim>.+?) -->",
    flags=re.DOTALL | re.MULTILINE,
)
PICTURE = re.compile(r"(!\[[^\]]*\]\()([\w-]+\.png)\)")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def insert(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace a tutorial by what it gives; its pictures are kept beside the build."""
    folder, _, name = page.rpartition("/")
    if folder != FOLDER or "```python" not in source[0]:
        return
    here, kept = Path(app.srcdir) / FOLDER, Path(app.doctreedir) / "drawn" / name
    for module in here.glob("*.py"):
        app.env.note_dependency(str(module))
    with tempfile.TemporaryDirectory() as made:
        text = Tutorial(here, Path(made)).run(source[0])
        kept.mkdir(parents=True, exist_ok=True)
        for picture in Path(made).glob("*.png"):
            shutil.copy(picture, kept)
    place = Path(os.path.relpath(kept, here)).as_posix()
    source[0] = PICTURE.sub(rf"\g<1>{place}/\g<2>)", text)


def shown(quantity: Quantity) -> str:
    """A number with its standard error, for expressions in the text."""
    from sizetransfer.numerics.averages import number

    return number(quantity.value, quantity.error)


def percent(one: Measurement) -> str:
    """A relative error in percent."""
    return f"{100 * one.value:.1f} ± {100 * (one.standard_error or 0):.1f} %"


def agree(deviation: Measurement, fields: np.ndarray) -> bool:
    """Whether independent fields have a root mean square within four standard errors of the difference."""
    squares = np.square(fields.astype(float)).mean((1, 2))
    value = np.sqrt(squares.mean())
    error = squares.std() / np.sqrt(len(squares)) / (2 * value)
    return bool(abs(value - deviation.value) < 4 * np.hypot(error, deviation.standard_error))


def generated(found: DataDiagnosis, radius: int, size: int, name: str) -> Quantity:
    """What the filter of the training size generates at a size, over what it should; for expressions too."""
    made = (one for found_radius in found.radii for one in found_radius.made)
    ratios = {(one.radius, one.size, one.fitted): one.ratios for one in made}
    return ratios[radius, size, found.training][name]


class ClaimError(Exception):
    """A claim of the text is not true."""


class Tutorial:
    """One page, run from its top.

    Args:
        beside: the folder of the page; its modules can be imported.
        folder: where the code works.
    """

    def __init__(self, beside: Path, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "tutorial"}
        self.words = {"shown": shown, "generated": generated, "percent": percent, "agree": agree}
        for module in beside.glob("*.py"):
            shutil.copy(module, folder)

    def run(self, page: str) -> str:
        """The page with what its blocks print.

        Raises:
            ClaimError: a claim of the text is not true.
            Exception: what a block raises.
        """
        with working_in(self.folder):
            return PART.sub(self._replace, page)

    def _replace(self, part: re.Match[str]) -> str:
        if part["said"]:
            return str(eval(part["said"], self.names | self.words))  # noqa: S307
        if part["claim"]:
            return self._hold(part["claim"])
        block, code = part[0], part["code"]
        ways: dict[str, Callable[[str], str]] = {"python": self._python, "console": self._console, "yaml": self._write}
        printed = "\n".join(line.rstrip() for line in ways[part["language"]](code).strip("\n").splitlines())
        return f"{block}\n\n```text\n{printed}\n```" if printed else block

    def _hold(self, claim: str) -> str:
        if not eval(claim, self.names | self.words):  # noqa: S307
            raise ClaimError(claim)
        return ""

    def _python(self, code: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, "tutorial", "exec"), self.names)  # noqa: S102
        return printed.getvalue()

    def _console(self, line: str) -> str:
        program, *arguments = shlex.split(line.removeprefix("$ ").replace("\\\n", " "))
        if program == "cat":
            return Path(arguments[0]).read_text(encoding="utf-8")
        from click.testing import CliRunner

        from sizetransfer.cli import cli

        if program != "sizetransfer":
            raise ValueError(f"a console block runs sizetransfer or cat, not {program}")
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        if result.exit_code:
            raise RuntimeError(f"{line}\n{result.output}")
        return result.stdout.replace(f"{self.folder.resolve()}", "…")

    def _write(self, code: str) -> str:
        first, _, rest = code.partition("\n")
        Path(first.removeprefix("# ")).write_text(rest, encoding="utf-8")
        return ""


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Work in a folder, and import from it; its modules are forgotten afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if (folder / f"{name}.py").exists():
                del sys.modules[name]
