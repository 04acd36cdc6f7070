"""Digests of sources: what decides a number changes them, nothing else does, and what runs is what is in the files."""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

import sizetransfer
from sizetransfer.contracts.errors import RunError, SpecError
from sizetransfer.contracts.specs import FieldInfo, KindSpec, Spec, StudentSpec
from sizetransfer.registry import Registry
from sizetransfer.runs.sources import Sources, files_read, literal_files, sources_of
from sizetransfer.runs.sources.text import read
from sizetransfer.students.wrapped import ModuleSpec

BUILT_IN = Registry(find_plugins=list)
PRESENTATION = {"report", "cli", "api", "docs", "diagnosis", "runs"}


class Tree:
    """A folder on ``sys.path`` with modules to import and to edit; the modules are forgotten afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, files: Mapping[str, str]) -> None:
        for name, code in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(code))
        importlib.invalidate_caches()

    def edit(self, name: str) -> None:
        with (self.folder / name).open("a") as stream:
            stream.write("\nEDITED = 1\n")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    folder = tmp_path / "code"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    yield Tree(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def install(tree: Tree, name: str, files: Mapping[str, str], metadata: str | None, *, record: bool = True) -> None:
    """Put a distribution among the installed ones, with a true list of its files."""
    site = tree.folder / "site-packages"
    tree.write({f"site-packages/{file}": code for file, code in files.items()})
    if metadata is not None:
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(metadata)
        if record:
            (info / "RECORD").write_text("\n".join(record_line(site, file) for file in files))
    if str(site) not in sys.path:
        sys.path.insert(1, str(site))  # the fixture's monkeypatch puts the path back
    importlib.invalidate_caches()


def record_line(site: Path, file: str) -> str:
    content = (site / file).read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{file},sha256={digest},{len(content)}"


NETWORK = {
    "mypkg/__init__.py": "",
    "mypkg/net.py": "from mypkg.layers import layer\ndef build(): return layer()\n",
    "mypkg/layers.py": "from . import blocks\ndef layer(): return blocks.block()\n",
    "mypkg/blocks.py": "def block():\n    import mypkg.late\n    return mypkg.late.VALUE\n",
    "mypkg/late.py": "VALUE = 1\n",
    "mypkg/unused.py": "",
}


@pytest.mark.parametrize(
    ("edited", "counts"),
    [("net", True), ("layers", True), ("blocks", True), ("late", True), ("__init__", True), ("unused", False)],
)
def test_an_edit_of_what_a_factory_imports_changes_the_digest(tree: Tree, edited: str, counts: bool) -> None:
    tree.write(NETWORK)
    before = sources_of(["mypkg.net"])
    tree.edit(f"mypkg/{edited}.py")
    after = sources_of(["mypkg.net"])
    name = "mypkg" if edited == "__init__" else f"mypkg.{edited}"
    assert (after.digest != before.digest) is counts
    assert after.changes(before) == ([f"{name} was changed"] if counts else [])
    assert set(before.modules) == {"mypkg", "mypkg.net", "mypkg.layers", "mypkg.blocks", "mypkg.late"}


CASES: dict[str, tuple[dict[str, str], set[str]]] = {
    "cycle": ({"one.py": "import two", "two.py": "import one"}, {"one", "two"}),
    "for type checkers": (
        {
            "one.py": """
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                import two
            elif True:
                import three
            if not TYPE_CHECKING:
                import four
            else:
                import two
            """,
            **{f"{name}.py": "" for name in ("two", "three", "four")},
        },
        {"one", "three", "four"},
    ),
    "attempted": (
        {"one.py": "try:\n    import not_there\nexcept ImportError:\n    import two", "two.py": ""},
        {"one", "two"},
    ),
    "relative": (
        {"one.py": "import pack.deep.leaf", "pack/__init__.py": "", "pack/deep/__init__.py": "from .. import side"}
        | {
            "pack/deep/leaf.py": "from ..side import x\nfrom . import twig",
            "pack/deep/twig.py": "",
            "pack/side.py": "",
        },
        {"one", "pack", "pack.deep", "pack.deep.leaf", "pack.deep.twig", "pack.side"},
    ),
    "literal dynamic import": (
        {"one.py": "from importlib import import_module\nimport_module('two')\n__import__('three')"}
        | {f"{name}.py": "" for name in ("two", "three", "four")},
        {"one", "two", "three"},
    ),
    "shadows the standard library": ({"one.py": "import this", "this.py": ""}, {"one", "this"}),
    "standard library": ({"one.py": "import json, sys, os.path, email.message, zoneinfo, _json"}, {"one"}),
    "torch": ({"one.py": "import torch.nn.functional as F\nfrom torch import nn"}, {"one"}),
    "what hooks register": (
        {
            "one.py": "from sizetransfer.contracts.errors import SpecError\n"
            "@hookimpl\ndef register_students(r):\n    import two"
        }
        | {"two.py": ""},
        {"one", "sizetransfer", "sizetransfer.contracts", "sizetransfer.contracts.errors"},
    ),
    "a name of the core": (
        {"one.py": "import sizetransfer as st\nclass A(st.SpecError): pass\nst.__version__"},
        {"one", "sizetransfer", "sizetransfer.contracts", "sizetransfer.contracts.errors"},
    ),
    "a name from the core": (
        {"one.py": "from sizetransfer import Event, contracts"},
        {"one", "sizetransfer", "sizetransfer.contracts", "sizetransfer.contracts.events"},
    ),
    "latin": ({"one.py": "# coding: latin-1\nimport two", "two.py": ""}, {"one", "two"}),
}


@pytest.mark.parametrize("case", CASES)
def test_imports_are_followed_as_they_are_written(tree: Tree, case: str) -> None:
    files, expected = CASES[case]
    tree.write(files)
    assert set(sources_of(["one"]).modules) == expected


@pytest.mark.parametrize("use", ["getattr(st, name)", "f(st)", "other = st"])
def test_the_whole_core_takes_part_where_its_use_cannot_be_told(tree: Tree, use: str) -> None:
    tree.write({"one.py": f"import sizetransfer as st\n{use}\n"})
    modules = sources_of(["one"]).modules
    assert {"sizetransfer.report.page", "sizetransfer.scores.training", "sizetransfer.cli"} <= set(modules)


OPEN_ENDED = {
    "import of a name": "import importlib\nimportlib.import_module(name)",
    "import under another name": "from importlib import import_module as load\nload(name)",
    "import passed on": "import importlib\nf(importlib.import_module)",
    "builtin import": "__import__(name)",
    "exec": "exec(text)",
    "eval": "eval(text)",
    "builtins": "import builtins\nbuiltins.exec(text)",
    "runpy": "import runpy",
    "file": "from importlib.util import spec_from_file_location as f",
    "path": "import sys\nsys.path.append('x')",
    "path by name": "from sys import path",
    "modules": "import sys\nsys.modules['x'] = y",
    "folders": "__path__.append('x')",
    "star": "from os import *",
    "syntax": "def (:",
    "null": "\0",
}


@pytest.mark.parametrize("case", OPEN_ENDED)
def test_a_package_takes_part_as_a_whole_where_its_imports_cannot_be_told(tree: Tree, case: str) -> None:
    tree.write({"pack/__init__.py": "", "pack/one.py": OPEN_ENDED[case], "pack/deep/far.py": "", "beside.py": ""})
    assert set(sources_of(["pack.one"]).modules) == {"pack", "pack.one", "pack.deep.far"}


def test_beside_a_loose_module_whose_imports_cannot_be_told_everything_takes_part(tree: Tree) -> None:
    tree.write({"one.py": "exec(text)", "beside.py": "", "pack/__init__.py": "", "pack/deep.py": "", "data/x.py": ""})
    assert set(sources_of(["one"]).modules) == {"one", "beside", "pack", "pack.deep"}


def test_methods_named_eval_import_nothing() -> None:
    assert not read(b"model.eval()\nre.compile('x')\nself.path", core="sizetransfer", trusted=False).open_ended


def test_a_source_in_no_encoding_takes_the_package(tree: Tree) -> None:
    tree.write({"pack/__init__.py": "", "pack/other.py": ""})
    (tree.folder / "pack/one.py").write_bytes(b"x = '\xff\xfe'\n")
    assert set(sources_of(["pack.one"]).modules) == {"pack", "pack.one", "pack.other"}


def test_a_namespace_package_takes_part_as_a_whole(tree: Tree) -> None:
    tree.write({"space/one.py": "", "space/deep/two.py": ""})
    assert set(sources_of(["space.one"]).modules) == {"space.one", "space.deep.two"}


def test_modules_in_a_zip_archive(tree: Tree) -> None:
    for value in (1, 2):
        archive = tree.folder / f"lib{value}.zip"
        with zipfile.ZipFile(archive, "w") as stream:
            stream.writestr("zipped/__init__.py", "from zipped import inner")
            stream.writestr("zipped/inner.py", f"VALUE = {value}")
    tree.write({"one.py": "import zipped"})
    sys.path.insert(1, str(tree.folder / "lib1.zip"))
    first = sources_of(["one"])
    sys.path[1] = str(tree.folder / "lib2.zip")
    assert set(first.modules) == {"one", "zipped", "zipped.inner"}
    assert sources_of(["one"]).changes(first) == ["zipped.inner was changed"]


def test_an_extension_takes_part_by_its_bytes(tree: Tree) -> None:
    tree.write({"pack/__init__.py": "from pack import fast"})
    extension = tree.folder / f"pack/fast{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    extension.write_bytes(b"one")
    before = sources_of(["pack"])
    extension.write_bytes(b"two")
    assert sources_of(["pack"]).changes(before) == ["pack.fast was changed"]


@pytest.mark.parametrize("name", ["no_such_module", "json.no_such_module", "", ".relative", "a..b"])
def test_an_unknown_module_is_refused(tree: Tree, name: str) -> None:
    with pytest.raises(SpecError, match="cannot be told"):
        sources_of([name])


def test_modules_that_a_finder_of_its_own_finds(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """As editable installations by setuptools do: a class on ``sys.meta_path``."""
    tree.write({"hidden/plug/__init__.py": "from plug import inner", "hidden/plug/inner.py": ""})

    class Finder:
        @classmethod
        def find_spec(cls, name: str, path: object = None, target: object = None) -> Any:
            file = tree.folder / "hidden/plug/__init__.py"
            return importlib.util.spec_from_file_location(name, file) if name == "plug" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert set(sources_of(["plug.inner"]).modules) == {"plug", "plug.inner"}


METADATA = "Metadata-Version: 2.1\nName: Some.Library\nVersion: 2.5\n\nName: not this\n"
UNTRUE = {
    "missing": None,
    "empty": "",
    "nameless": "Metadata-Version: 2.1\nVersion: 2.5\n",
    "without version": "Name: some-library\nVersion:\n",
}


def test_an_installed_library_takes_part_by_its_version(tree: Tree) -> None:
    install(tree, "some_library", {"library/__init__.py": "import deeper", "library/core.py": ""}, METADATA)
    tree.write({"one.py": "from library import core"})
    sources = sources_of(["one"])
    assert (set(sources.modules), sources.distributions) == ({"one"}, {"some-library": "2.5"})


@pytest.mark.parametrize("case", UNTRUE)
def test_without_true_metadata_the_version_is_told_from_the_code(tree: Tree, case: str) -> None:
    install(tree, "library", {"library/__init__.py": "", "library/core.py": ""}, UNTRUE[case])
    tree.write({"one.py": "import library"})
    before = sources_of(["one"])
    (version,) = before.distributions.values()
    assert version.startswith("code ")
    tree.edit("site-packages/library/core.py")
    os.utime(tree.folder / "site-packages")
    assert len(sources_of(["one"]).changes(before)) == 1


@pytest.mark.parametrize("stale", ["__init__", "core"])
def test_metadata_of_other_files_are_not_believed(tree: Tree, stale: str) -> None:
    install(tree, "some_library", {"library/__init__.py": "", "library/core.py": ""}, METADATA)
    tree.write({"one.py": "import library"})
    tree.edit(f"site-packages/library/{stale}.py")
    (version,) = sources_of(["one"]).distributions.values()
    assert version.startswith("code ")


def test_two_metadata_for_one_library_are_not_believed(tree: Tree) -> None:
    install(tree, "library", {"library/__init__.py": ""}, METADATA)
    shutil.copytree(
        tree.folder / "site-packages/library-1.0.dist-info", tree.folder / "site-packages/library-2.0.dist-info"
    )
    tree.write({"one.py": "import library"})
    (version,) = sources_of(["one"]).distributions.values()
    assert version.startswith("code ")


def test_whoever_owns_a_root_takes_part_by_content_also_when_installed(tree: Tree) -> None:
    files = {"plug/__init__.py": "", "plug/student.py": "from plug import layers\nimport library", "plug/layers.py": ""}
    install(tree, "plug", files, METADATA)
    install(tree, "some_library", {"library/__init__.py": ""}, METADATA)
    before = sources_of(["plug.student"])
    assert set(before.modules) == {"plug", "plug.student", "plug.layers"}
    assert before.distributions == {"some-library": "2.5"}
    tree.edit("site-packages/plug/layers.py")
    assert sources_of(["plug.student"]).changes(before) == ["plug.layers was changed"]


def test_an_edit_of_a_submodule_of_an_editable_plugin_changes_the_digest(tree: Tree) -> None:
    """An editable installation is a line in a ``.pth`` file: a folder on the path, and metadata elsewhere."""
    install(tree, "plug", {}, METADATA)
    tree.write({"src/plug/__init__.py": "", "src/plug/student.py": "from .deep import layers"})
    tree.write({"src/plug/deep/__init__.py": "", "src/plug/deep/layers.py": ""})
    sys.path.insert(1, str(tree.folder / "src"))
    before = sources_of(["plug.student"])
    tree.edit("src/plug/deep/layers.py")
    assert sources_of(["plug.student"]).changes(before) == ["plug.deep.layers was changed"]


@pytest.mark.parametrize(
    ("edited", "counts"),
    [
        ("report/page.py", False),
        ("cli/console.py", False),
        ("cli/__init__.py", False),
        ("systems/flow/plugin.py", False),
        ("scores/training.py", True),
        ("contracts/noise.py", True),
    ],
)
def test_edits_of_the_core(tmp_path: Path, edited: str, counts: bool) -> None:
    copy = tmp_path / "sizetransfer"
    shutil.copytree(Path(sizetransfer.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    program = (
        "import json; from sizetransfer.runs.sources import sources_of\n"
        "roots = ['sizetransfer.systems.flow.teacher', 'sizetransfer.students.cnn', 'sizetransfer.scores.training']\n"
        "found = sources_of(roots)\n"
        "print(json.dumps([found.digest, found.to_json()]))\n"
    )

    def told() -> tuple[str, Sources]:
        digest, data = json.loads(run(program, tmp_path).stdout)
        return digest, Sources.from_json(data)

    before = told()
    with (copy / edited).open("a") as stream:
        stream.write("\n# a comment\n")
    after = told()
    assert (after[0] != before[0]) is counts
    name = edited.removesuffix(".py").replace("/", ".")
    assert after[1].changes(before[1]) == ([f"sizetransfer.{name} was changed"] if counts else [])


@pytest.mark.parametrize("family", ["teacher", "student", "measure"])
def test_the_sources_of_what_is_built_in_hold_no_presentation(family: Any) -> None:
    for kind, entry in BUILT_IN.kinds(family).items():
        spec = entry.spec_class.model_construct(factory="torch.nn:Identity")
        sources = sources_of([*spec.code(), "sizetransfer.scores.training"])
        parts = {name.split(".")[1] for name in sources.modules if "." in name}
        assert not parts & PRESENTATION, kind
        assert None not in sources.distributions.values()


def test_changes_are_told_in_words() -> None:
    before = Sources({"a": "1", "b": "1"}, {"numpy": "1.26", "odd": "code 1"}, {"w.pt": "1", "old": "2"})
    after = Sources({"a": "2", "c": "1"}, {"numpy": "2.0", "odd": "1.0"}, {"w.pt": "3", "moved": "2"})
    assert after.changes(before) == [
        "a was changed",
        "b took part before and does not now",
        "c takes part now and did not before",
        "numpy was 1.26 and is 2.0",
        "odd was changed",
        "the file w.pt was changed",
    ]
    assert after.changes(after) == []


def test_the_digest_is_of_contents_in_any_order_and_survives_json() -> None:
    one = Sources({"a": "1", "b": "2"}, {}, {"x/w.pt": "9"})
    assert Sources({"b": "2", "a": "1"}, {}, {"y/w.pt": "9"}).digest == one.digest
    assert Sources({"b": "1", "a": "2"}, {}, {"x/w.pt": "9"}).digest != one.digest
    assert Sources.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_the_content_of_files_takes_part(tree: Tree, tmp_path: Path) -> None:
    tree.write({"one.py": ""})
    (tmp_path / "w.pt").write_bytes(b"one")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_bytes(b"one")
    files = [Path("w.pt"), Path("data")]
    before = sources_of(["one"], files=files)
    (tmp_path / "w.pt").write_bytes(b"two")
    assert sources_of(["one"], files=files).changes(before) == ["the file w.pt was changed"]
    (tmp_path / "data/y").write_bytes(b"")
    assert len(sources_of(["one"], files=files).changes(before)) == 2
    with pytest.raises(SpecError, match=r"missing\.pt"):
        sources_of(["one"], files=[Path("missing.pt")])


# -- what runs


BEFORE = """
import functools
WIDTH = 4
HEIGHT, DEPTH = 1, 2
FIRST = LAST = 3
_calls = 0

def decorated(function):
    @functools.wraps(function)
    def inner(*arguments):
        return function(*arguments)
    return inner

class Net:
    radius = 2
    counted = 0
    @staticmethod
    def scale(): return 2.0
    @property
    def value(self): return [x + 1 for x in range(3)]
    @decorated
    def forward(self, x, depth=3): return x * 3

def build(width=8, *, bias=True):
    global _calls
    _calls += 1
    Net.counted = _calls
    return Net()
"""
EDITS = {
    "constant": ("WIDTH = 4", "WIDTH = 8"),
    "constant with two names": ("LAST = 3", "LAST = 4"),
    "attribute": ("radius = 2", "radius = 3"),
    "static method": ("return 2.0", "return 3.0"),
    "property": ("x + 1", "x + 2"),
    "decorated method": ("x * 3", "x * 4"),
    "default": ("depth=3", "depth=4"),
    "default of a function": ("width=8", "width=9"),
    "keyword": ("bias=True", "bias=False"),
    "new method": ("    radius = 2", "    radius = 2\n    def extra(self): return 1"),
    "syntax": ("def build(", "def build(("),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_after_the_import_is_named(tree: Tree, edit: str) -> None:
    tree.write({"mymod.py": BEFORE})
    module = importlib.import_module("mymod")
    module.build()
    (tree.folder / "mymod.py").write_text(BEFORE.replace(*EDITS[edit]))
    with pytest.raises(RunError, match="mymod was changed after it was imported") as caught:
        sources_of(["mymod"])
    assert "importlib.reload" in str(caught.value.fix)


def test_what_runs_as_it_stands_is_accepted(tree: Tree) -> None:
    tree.write({"mymod.py": BEFORE})
    module = importlib.import_module("mymod")
    module.build()
    before = sources_of(["mymod"])
    (tree.folder / "mymod.py").write_text("# moved down by comments\n\n" + BEFORE + "# a comment\n")
    assert sources_of(["mymod"]).digest != before.digest
    module.build = sys.exit  # put in from elsewhere, as tests and instrumentation do
    sources_of(["mymod"])


def test_a_set_has_no_order(tree: Tree) -> None:
    """The members 0 and 8 fall on each other in a small hash table: which comes first is an accident."""
    tree.write({"mymod.py": "def among(x):\n    return x in {0, 8}\n"})
    module = importlib.import_module("mymod")
    assert module.among(8)
    (tree.folder / "mymod.py").write_text("def among(x):\n    return x in {8, 0}\n")
    sources_of(["mymod"])
    tree.write({"other.py": "def among(x):\n    return x in {0, 8}\n"})
    importlib.import_module("other")
    (tree.folder / "other.py").write_text("def among(x):\n    return x in {0, 16}\n")
    with pytest.raises(RunError, match="the function among"):
        sources_of(["other"])


EVERY_MODULE = """
import importlib, pkgutil
import sizetransfer
from sizetransfer.runs.sources import live
from sizetransfer.runs.sources.places import content, find

for found in pkgutil.walk_packages(sizetransfer.__path__, "sizetransfer."):
    if "template" not in found.name and not found.name.endswith("__main__"):
        place = find(found.name)
        for difference in live._differences(importlib.import_module(found.name), place, content(place)):
            print(found.name, difference)
"""


@pytest.mark.slow
def test_no_module_of_the_package_is_taken_for_changed(tmp_path: Path) -> None:
    """A package that was installed a moment ago is compared with its files in the first run."""
    done = run(EVERY_MODULE, tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_an_edit_between_two_digests_is_seen_whatever_it_is_and_reloading_accepts_it(tree: Tree) -> None:
    tree.write({"mymod.py": "TABLE = {'a': 1}\n"})
    module = importlib.import_module("mymod")
    sources_of(["mymod"])
    tree.write({"mymod.py": "TABLE = {'a': 1, 'b': 2}\n"})
    with pytest.raises(RunError, match="mymod was changed"):
        sources_of(["mymod"])
    importlib.reload(module)
    assert "mymod" in sources_of(["mymod"]).modules


def test_instrumented_modules_are_no_change() -> None:
    """The suite's import hook makes other code of ``training`` than its file says."""
    module = importlib.import_module("sizetransfer.scores.training")
    file = Path(str(module.__file__))
    file.touch()
    assert hasattr(module.train, "__wrapped__")
    assert "sizetransfer.scores.training" in sources_of(["sizetransfer.scores.training"]).modules


def run(program: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments] if arguments else [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


MAIN = """
import linecache
from sizetransfer.runs.sources import sources_of

def cell(text, name):
    kept = [line + "\\n" for line in text.splitlines()]
    linecache.cache[name] = (len(text), None, kept, name)
    exec(compile(text, name, "exec"), globals())

cell.__module__ = "the machinery of notebooks"
"""


def test_the_script_itself_takes_part(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(MAIN + "import helper\nprint(sorted(sources_of(['__main__']).modules))\n")
    (tmp_path / "helper.py").write_text("")
    printed = run("", tmp_path, "script.py").stdout
    assert "'__main__'" in printed
    assert "'helper'" in printed


def test_cells_of_a_notebook_take_part(tmp_path: Path) -> None:
    cells = "cell('class A:\\n    def f(self): return {}\\n', 'cell-1')\nprint(sources_of(['__main__']).digest)\n"
    digests = [run(MAIN + cells.format(value), tmp_path).stdout for value in (1, 2, 1)]
    assert digests[0] != digests[1]
    assert digests[0] == digests[2] != ""


def test_code_whose_text_was_not_kept_is_refused_by_name(tmp_path: Path) -> None:
    program = (
        "from sizetransfer.runs.sources import sources_of\nclass Net:\n    def f(self): pass\nsources_of(['__main__'])"
    )
    done = run(program, tmp_path)
    assert "SpecError: The code of the module '__main__' cannot be told." in done.stderr
    assert "Net was defined where its text was not kept" in done.stderr


# -- files


def test_files_opened_for_reading_are_recorded(tmp_path: Path) -> None:
    for name in ("read", "appended", "code.py", "by_number", "before"):
        (tmp_path / name).write_text("x")
    (tmp_path / "before").read_text()
    with files_read() as outer, files_read() as found:
        (tmp_path / "read").read_text()
        (tmp_path / "code.py").read_text()
        os.close(os.open(tmp_path / "by_number", os.O_RDONLY))
        (tmp_path / "appended").open("a").close()
        (tmp_path / "made").write_text("x")
        (tmp_path / "made").read_text()
        Path("/proc/self/stat").read_text()
        Path(json.__file__).read_text()
        with pytest.raises(FileNotFoundError):
            (tmp_path / "missing").read_text()
    assert found == outer == {tmp_path / "read", tmp_path / "by_number"}
    (tmp_path / "before").read_text()
    assert tmp_path / "before" not in found


def test_other_threads_open_files_unheard(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("x")
    thread = threading.Thread(target=(tmp_path / "theirs").read_text)
    with files_read() as found:
        thread.start()
        thread.join()
    assert found == set()


def test_files_that_string_literals_name(tree: Tree, tmp_path: Path) -> None:
    names = (
        "here.pt",
        "code/pack/beside.pt",
        "code/pack/data/joined.pt",
        "code/pack/data/called.pt",
        "code/pack/a/b.pt",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    tree.write(
        {
            "pack/__init__.py": "",
            "pack/net.py": """
        import os
        from pathlib import Path
        FIRST = "here.pt", "absent.pt", "net.py", "data"
        SECOND = Path(__file__).parent / "data" / "joined.pt", os.path.join("data", "called.pt"), Path("a") / "b.pt"
        def load(): return "beside.pt"
    """,
        }
    )
    expected = {"here.pt", "beside.pt", "joined.pt", "called.pt", "b.pt"}
    assert {path.name for path in literal_files(["pack.net"])} == expected
    assert {path.name for path in literal_files(sources_of(["pack.net"]))} == expected
    assert literal_files(["sizetransfer.scores.training"]) == set()


class Inner(Spec):
    weights: Path | None = None


class PathStudent(StudentSpec):
    kind: Literal["path-student"] = "path-student"
    inner: Inner = Inner()
    many: tuple[Path, ...] = ()

    def build(self, field: FieldInfo) -> Any:
        return field


def test_a_specification_names_its_code_and_files(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_text("x")
    (tmp_path / "v.pt").write_text("x")
    many = (tmp_path / "v.pt", tmp_path / "absent")
    spec = PathStudent(inner=Inner(weights=tmp_path / "w.pt"), many=many)
    assert spec.code() == (__name__, "sizetransfer.contracts.specs")
    assert set(spec.reads()) == {tmp_path / "w.pt", tmp_path / "v.pt"}
    assert isinstance(spec, KindSpec)


def test_the_specification_of_a_foreign_module_names_its_code_and_files(tree: Tree, tmp_path: Path) -> None:
    for name in ("w.pt", "v.pt", "more.bin"):
        (tmp_path / name).write_text("x")
    arguments = {"weights": "w.pt", "deep": [{"x": "v.pt"}, "no file", 3, "\0"], "long": "x" * 5000}
    spec = ModuleSpec(factory="mypkg.net:Net", arguments=arguments, files=("more.bin",))
    assert spec.code()[-1] == "mypkg.net"
    assert set(spec.reads()) == {Path("w.pt"), Path("v.pt"), Path("more.bin")}
    with pytest.raises(SpecError, match=r"absent\.bin"):
        ModuleSpec(factory="mypkg.net:Net", files=("absent.bin",)).reads()


@pytest.mark.slow
def test_it_costs_little() -> None:
    program = """
        import time
        from sizetransfer.runs.sources import sources_of
        roots = ["sizetransfer.systems.flow.teacher", "sizetransfer.students.cnn", "sizetransfer.scores.training"]
        for _ in range(2):
            start = time.process_time()
            sources_of(roots)
            print(time.process_time() - start)
    """
    first, again = map(float, run(program, Path.cwd()).stdout.split())
    assert first < 1  # a third of that on an idle machine
    assert again < 0.1
