"""The registry with real plugins: healthy ones are found, broken ones are isolated and named with their owner."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plugin_factory import HEALTHY, PluginFactory

from sizetransfer.contracts.errors import PluginError, SpecError
from sizetransfer.contracts.events import Event
from sizetransfer.registry import ELSEWHERE, Registry, Sort, default_registry
from sizetransfer.registry.plugins import PluginRecord, core_version

CORE = (
    HEALTHY.format(kind="plain")
    + """
@hookimpl
def register_experiments(register):
    from pathlib import Path
    register(Path(__file__).with_name("first.yaml"))

@hookimpl
def register_executors(register):
    register("here", dict)
"""
)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginFactory]:
    factory = PluginFactory(tmp_path, monkeypatch)
    (tmp_path / "first.yaml").write_text("title: First\n")
    factory.module("core_stand_in", CORE)
    yield factory
    factory.forget()


def registry() -> Registry:
    """A registry whose only built-ins are the student ``plain``, the experiment ``first`` and the executor ``here``."""
    return Registry(built_in=("core_stand_in",))


def record_of(found: Registry, distribution: str) -> PluginRecord:
    (record,) = [record for record in found.plugins() if record.distribution == distribution]
    return record


def test_built_ins_come_in_through_the_same_hooks(plugins: PluginFactory) -> None:
    found = registry()
    assert found.lookup("student", "plain").kind_name() == "plain"
    assert list(found.experiments()) == ["first"]
    assert found.experiment("first").name == "first.yaml"
    assert found.executor("here") is dict
    assert found.kinds("student")["plain"].distribution == "sizetransfer"


def test_the_package_registers_what_it_ships() -> None:
    found = Registry(find_plugins=list)
    assert "flow" in found.kinds("teacher")
    assert "cnn" in found.kinds("student")
    assert "local" in found.entries("executor")
    assert {entry.distribution for entry in found.kinds("teacher").values()} == {"sizetransfer"}
    assert default_registry() is default_registry()


def test_a_healthy_plugin_is_found_with_its_owner(plugins: PluginFactory) -> None:
    plugins.healthy("toy-students", "toy")
    found = registry()
    assert found.lookup("student", "toy").parse({"kind": "toy"}).to_json() == {"kind": "toy"}
    entry = found.kinds("student")["toy"]
    assert (entry.distribution, entry.version) == ("toy-students", "1.2")
    record = record_of(found, "toy-students")
    assert (record.status, record.provides, record.error) == ("loaded", ("student toy",), None)


def test_a_plugin_is_not_imported_while_built_ins_suffice(plugins: PluginFactory) -> None:
    plugins.healthy("toy-students", "toy")
    found = registry()
    found.lookup("student", "plain")
    found.experiment("first")
    found.executor("here")
    assert "toy_students" not in sys.modules
    found.lookup("student", "toy")
    assert "toy_students" in sys.modules


BROKEN = {
    "raises": ("raise RuntimeError('no licence')", "import", "RuntimeError: no licence"),
    "exits": ("import sys; sys.exit(4)", "import", "SystemExit: 4"),
    "malformed": ("def broken(:\n", "import", "SyntaxError"),
    "incomplete": ("import a_module_that_is_not_there", "import", "a_module_that_is_not_there"),
    "misspelt": (
        "from sizetransfer.registry.hooks import hookimpl\n@hookimpl\ndef register_studnets(register): pass\n",
        "register",
        "Did you mean 'register_students'?",
    ),
    "wrong arguments": (
        "from sizetransfer.registry.hooks import hookimpl\n@hookimpl\ndef register_students(register, extra): pass\n",
        "register",
        "extra",
    ),
    "unmarked": ("def register_students(register): pass\n", "register", "not marked with hookimpl"),
    "empty": ("students = 3\n", "register", "implements no hook"),
    "raises in its hook": (
        "from sizetransfer.registry.hooks import hookimpl\n@hookimpl\ndef register_students(register): 1 / 0\n",
        "register",
        "ZeroDivisionError",
    ),
    "no specification": (
        "from sizetransfer import hookimpl\n@hookimpl\ndef register_students(register): register(dict)\n",
        "register",
        "no subclass of StudentSpec",
    ),
    "wrong family": (
        HEALTHY.format(kind="toy").replace("register_students", "register_teachers"),
        "register",
        "no subclass of TeacherSpec",
    ),
    "abstract": (HEALTHY.format(kind="toy").replace("def build", "def built"), "register", "does not define build"),
    "no kind": (
        HEALTHY.format(kind="toy").replace('kind: Literal["toy"]', "kind: str"),
        "register",
        "has no kind of its own",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_isolated_and_named(plugins: PluginFactory, case: str) -> None:
    code, phase, message = BROKEN[case]
    plugins.install("broken-one", code)
    plugins.healthy("toy-students", "toy")
    plugins.healthy("a-student-first", "early")
    found = registry()
    assert found.lookup("student", "plain")
    assert found.lookup("student", "toy")
    assert found.lookup("student", "early")
    record = record_of(found, "broken-one")
    assert (record.status, record.phase, record.version) == ("broken", phase, "1.2")
    assert message in str(record.error)
    assert record.fix
    assert [r.distribution for r in found.trouble()] == ["broken-one"]


@pytest.mark.parametrize("case", ["raises", "raises in its hook", "misspelt"])
def test_a_lookup_that_fails_tells_of_broken_plugins(plugins: PluginFactory, case: str) -> None:
    code, _, message = BROKEN[case]
    plugins.install("broken-one", code)
    with pytest.raises(SpecError) as caught:
        registry().lookup("student", "wanted")
    assert "broken-one 1.2 (entry point main)" in str(caught.value)
    assert message in str(caught.value)


def test_the_place_of_an_exception_is_told(plugins: PluginFactory) -> None:
    plugins.install("broken-one", "\n\nraise RuntimeError('no licence')\n")
    assert "broken_one.py, line 3" in str(record_of(registry(), "broken-one").error)


def test_an_unknown_kind_gets_the_nearest_names_and_their_owners(plugins: PluginFactory) -> None:
    plugins.healthy("toy-students", "toytoy")
    with pytest.raises(SpecError) as caught:
        registry().lookup("student", "toytyo")
    assert "toytoy (toy-students 1.2)" in str(caught.value.expected)
    assert f"plain (sizetransfer {core_version()})" in str(caught.value.expected)
    assert "Did you mean 'toytoy'?" in str(caught.value.fix)


@pytest.mark.parametrize(("sort", "name"), ELSEWHERE)
def test_a_name_of_another_distribution_of_the_project_says_what_to_install(
    plugins: PluginFactory, sort: Sort, name: str
) -> None:
    with pytest.raises(SpecError) as caught:
        registry().entry(sort, name)
    assert f"pip install {ELSEWHERE[sort, name]}" in str(caught.value.fix)


@pytest.mark.parametrize("sort", ["experiment", "executor"])
def test_an_unknown_experiment_or_executor_is_refused(plugins: PluginFactory, sort: str) -> None:
    with pytest.raises(SpecError, match=f"Unknown {sort} 'frist'"):
        getattr(registry(), sort)("frist")


def test_a_clash_with_a_built_in_keeps_the_built_in_and_names_both(plugins: PluginFactory) -> None:
    plugins.healthy("usurper", "plain")
    found = registry()
    before = found.lookup("student", "plain")
    error = str(record_of(found, "usurper").error)
    assert "sizetransfer" in error
    assert "usurper 1.2 (entry point main)" in error
    assert found.kinds("student")["plain"].spec_class is before
    assert found.owner_versions([("student", "plain")]) == {"sizetransfer": core_version()}


def test_a_clash_of_two_plugins_is_won_by_the_first_in_the_alphabet(plugins: PluginFactory) -> None:
    plugins.healthy("b-second", "toy")
    plugins.healthy("a-first", "toy")
    found = registry()
    assert found.kinds("student")["toy"].distribution == "a-first"
    assert "a-first 1.2 (entry point main), which keeps it" in str(record_of(found, "b-second").error)
    assert record_of(found, "a-first").status == "loaded"


def test_what_is_healthy_in_a_plugin_with_one_refused_name_stays(plugins: PluginFactory) -> None:
    code = (
        HEALTHY.format(kind="plain")
        + "    register(type('B', (ToySpec,), {'__annotations__': {'kind': Literal['b']}, 'kind': 'b'}))\n"
    )
    plugins.install("half", code)
    found = registry()
    assert found.kinds("student")["b"].distribution == "half"
    assert record_of(found, "half").status == "broken"


@pytest.mark.parametrize(("path", "valid"), [("own.yaml", True), ("missing.yaml", False), ("own.txt", False)])
def test_experiments_are_existing_yaml_files(plugins: PluginFactory, path: str, valid: bool) -> None:
    for name in ("own.yaml", "own.txt"):
        (plugins.directory / name).write_text("title: Own\n")
    plugins.install(
        "more-experiments",
        f"""
        from pathlib import Path
        from sizetransfer.registry.hooks import hookimpl

        @hookimpl
        def register_experiments(register):
            register(Path(__file__).with_name({path!r}))
        """,
    )
    found = registry()
    assert ("own" in found.experiments()) is valid
    assert (record_of(found, "more-experiments").status == "loaded") is valid


def test_owner_versions_always_contain_the_core(plugins: PluginFactory) -> None:
    plugins.healthy("toy-students", "toy")
    assert registry().owner_versions([]) == {"sizetransfer": core_version()}
    assert registry().owner_versions([("student", "toy")]) == {"sizetransfer": core_version(), "toy-students": "1.2"}


def test_none_disables_every_plugin(plugins: PluginFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins.healthy("toy-students", "toy")
    monkeypatch.setenv("SIZETRANSFER_PLUGINS", "none")
    found = registry()
    with pytest.raises(SpecError, match="SIZETRANSFER_PLUGINS leaves out") as caught:
        found.lookup("student", "toy")
    assert "toy-students" in str(caught.value)
    assert record_of(found, "toy-students").status == "disabled"
    assert "toy_students" not in sys.modules


@pytest.mark.parametrize("choice", ["toy-students", "Toy_Students", "special"])
def test_plugins_are_chosen_by_distribution_or_entry_point(
    plugins: PluginFactory, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    plugins.install("toy-students", HEALTHY.format(kind="toy"), entry_points="[sizetransfer]\nspecial = toy_students\n")
    plugins.healthy("other-students", "other")
    monkeypatch.setenv("SIZETRANSFER_PLUGINS", choice)
    assert set(registry().kinds("student")) == {"plain", "toy"}


def test_a_chosen_plugin_that_is_not_installed_is_named(
    plugins: PluginFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.healthy("toy-students", "toy")
    monkeypatch.setenv("SIZETRANSFER_PLUGINS", "toy-studnets")
    found = registry()
    with pytest.warns(UserWarning, match="did you mean 'toy-students'"):
        found.kinds("student")
    assert record_of(found, "toy-studnets").status == "broken"


@pytest.mark.parametrize(
    ("entry_points", "phase", "message"),
    [
        ("[sizetransfer]\nno equals sign\n", "discover", "cannot be read"),
        ("[sizetransfer]\nmain = not a module!\n", "import", "module:attribute"),
        ("[sizetransfer]\nmain = toy_students:missing\n", "import", "missing"),
    ],
)
def test_malformed_metadata_is_isolated(plugins: PluginFactory, entry_points: str, phase: str, message: str) -> None:
    plugins.install("toy-students", HEALTHY.format(kind="toy"), entry_points=entry_points)
    plugins.healthy("other-students", "other")
    found = registry()
    assert "other" in found.kinds("student")
    record = record_of(found, "toy-students")
    assert (record.status, record.phase) == ("broken", phase)
    assert message in str(record.error)


def test_an_entry_point_may_name_an_object_of_a_module(plugins: PluginFactory) -> None:
    code = HEALTHY.format(kind="toy").replace(
        "def register_students(register)", "def register_students(self, register)"
    )
    body = "\n".join(f"    {line}" for line in code.splitlines() if "import hookimpl" not in line)
    code = f"from sizetransfer.registry.hooks import hookimpl\nclass Plugin:\n{body}\nplugin = Plugin()\n"
    plugins.install("toy-students", code, entry_points="[sizetransfer]\nmain = toy_students:plugin\n")
    assert "toy" in registry().kinds("student")


def test_what_a_plugin_prints_does_not_reach_the_output(
    plugins: PluginFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.install("loud", "print('hello')\n" + HEALTHY.format(kind="loud") + "    print('again')\n")
    registry().kinds("student")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err


LISTENER = """
from sizetransfer.registry.hooks import hookimpl
seen = []

@hookimpl
def on_event(event):
    seen.append(event)
    {then}
"""


def test_events_reach_every_plugin_and_a_failing_one_is_recorded_once(plugins: PluginFactory) -> None:
    plugins.install("a-failing", LISTENER.format(then="raise OSError('no network')"))
    plugins.install("b-tracker", LISTENER.format(then=""))
    found = registry()
    assert [plugin.record.distribution for plugin in found.listeners()] == ["a-failing", "b-tracker"]
    events = [Event("started", "key", "label"), Event("finished", "key", "label", done=1.0)]
    with pytest.warns(UserWarning, match="a-failing 1.2"):
        found.emit(events[0])
    found.emit(events[1])
    assert sys.modules["b_tracker"].seen == events
    assert sys.modules["a_failing"].seen == events[:1]
    record = record_of(found, "a-failing")
    assert (record.status, record.phase) == ("broken", "event")
    assert str(record.error).count("no network") == 1


def test_events_without_listeners_warn_of_nothing(plugins: PluginFactory) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry().emit(Event("started", "key", "label"))


def test_telling_of_events_imports_nothing(plugins: PluginFactory) -> None:
    plugins.install("b-tracker", LISTENER.format(then=""))
    found = registry()
    found.emit(Event("started", "key", "label"))
    assert "b_tracker" not in sys.modules
    assert len(found.listeners()) == 1
    assert found.listeners() == found.listeners()
    assert sys.modules["b_tracker"].seen == []


@pytest.mark.parametrize("exit_code", [0, 3])
def test_a_listener_that_exits_is_a_failed_listener(plugins: PluginFactory, exit_code: int) -> None:
    plugins.install("a-failing", LISTENER.format(then=f"raise SystemExit({exit_code})"))
    found = registry()
    found.listeners()
    with pytest.warns(UserWarning, match=f"SystemExit: {exit_code}"):
        found.emit(Event("started", "key", "label"))
    assert record_of(found, "a-failing").status == "broken"


def test_what_is_no_exception_at_all_is_isolated_too(plugins: PluginFactory) -> None:
    plugins.install("broken-one", "class Odd(BaseException): pass\nraise Odd('strange')")
    assert "Odd: strange" in str(record_of(registry(), "broken-one").error)


def test_an_interrupt_is_no_failure_of_a_plugin(plugins: PluginFactory) -> None:
    plugins.install("slow-one", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registry().kinds("student")


EXITING = HEALTHY.replace(
    "        def build",
    """        @model_validator(mode="after")
        def _ends(self):
            raise SystemExit(0)

        def build""",
).replace("    from typing", "    from pydantic import model_validator\n    from typing")


def test_a_validator_that_exits_is_a_wrong_specification(plugins: PluginFactory) -> None:
    plugins.install("exiting", EXITING.format(kind="exiting"))
    with pytest.raises(SpecError, match=r"sys\.exit") as caught:
        registry().lookup("student", "exiting").parse({"kind": "exiting"}, where="students.one")
    assert caught.value.where == "students.one"
    assert "exiting.py, line" in str(caught.value.got)


def owners(found: Registry, *kinds: str) -> tuple[str, ...]:
    return found.owners([("student", kind) for kind in kinds])


def chosen(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    monkeypatch.setenv("SIZETRANSFER_PLUGINS", ",".join(names))
    records = registry().plugins()
    assert {record.status for record in records} <= {"loaded", "disabled"}
    return [(record.distribution, record.entry_point) for record in records if record.status == "loaded"]


def test_nobody_owns_what_is_built_in(plugins: PluginFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins.healthy("toy-students", "toy")
    found = registry()
    assert found.owners([("student", "plain"), ("executor", "here")]) == ("none",)
    assert "toy_students" not in sys.modules
    assert chosen(("none",), monkeypatch) == []
    with pytest.raises(SpecError, match="Unknown student"):
        owners(found, "absent")


def test_owners_are_the_distributions_that_are_needed(plugins: PluginFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in (("toy-students", "toy"), ("more.students", "more"), ("idle", "idle")):
        plugins.healthy(name.replace(".", "-"), kind)
    names = owners(registry(), "plain", "toy", "more", "toy")
    assert names == ("toy-students", "more-students")
    assert chosen(names, monkeypatch) == [("more-students", "main"), ("toy-students", "main")]


def test_owners_with_two_entry_points_come_with_both(plugins: PluginFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "[sizetransfer]\nfirst = two_points\nsecond = second_point\n"
    plugins.install("two-points", HEALTHY.format(kind="one"), entry_points=points)
    plugins.module("second_point", HEALTHY.format(kind="two"))
    plugins.healthy("idle", "idle")
    names = owners(registry(), "one", "two")
    assert names == ("two-points",)
    assert chosen(names, monkeypatch) == [("two-points", "first"), ("two-points", "second")]


@pytest.mark.parametrize("name", ["none", "main", "odd, name", "odd name"])
def test_owners_with_odd_names_choose_nobody_else(
    plugins: PluginFactory, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plugins.install("stranger", HEALTHY.format(kind="odd"))
    metadata = plugins.directory / "stranger-1.2.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("stranger", name))
    plugins.healthy("idle", "idle")
    names = owners(registry(), "odd")
    assert chosen(names, monkeypatch) == [(name, "main")]


@pytest.mark.parametrize(
    ("metadata", "identity"),
    [
        ("", ("toy_students", "unknown")),
        ("Version: 1.5\n", ("toy_students", "1.5")),
        ("Name: Toy\n", ("Toy", "unknown")),
        ("Name:\nVersion:\n", ("toy_students", "unknown")),
        (None, ("toy_students", "unknown")),
    ],
)
def test_metadata_that_say_nothing_are_said_to_be_unknown(
    plugins: PluginFactory, metadata: str | None, identity: tuple[str, str]
) -> None:
    plugins.healthy("toy-students", "toy")
    file = plugins.directory / "toy_students-1.2.dist-info" / "METADATA"
    file.unlink() if metadata is None else file.write_text(metadata)
    assert registry().owner_versions([("student", "toy")]) == dict([("sizetransfer", core_version()), identity])


def test_a_core_without_metadata_has_an_unknown_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sizetransfer-0.1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert core_version() == "unknown"


DISTURBING = """
import random
import numpy
import torch
torch.set_default_dtype(torch.float16)
torch.set_default_device("meta")
torch.set_grad_enabled(False)
torch.set_num_threads(torch.get_num_threads() + 1)
torch.set_float32_matmul_precision("medium")
torch.use_deterministic_algorithms(True)
torch.manual_seed(3)
numpy.random.seed(3)
random.seed(3)
"""
STATE = """
import random, numpy, torch
def state():
    copy = torch.Generator().set_state(torch.get_rng_state())
    return (
        torch.get_default_dtype(), str(torch.get_default_device()), torch.is_grad_enabled(), torch.get_num_threads(),
        torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled(),
        torch.rand(3, generator=copy).tolist(), int(numpy.random.get_state()[1].sum()), random.getstate(),
    )
"""


@pytest.mark.parametrize("place", ["import", "hook", "listener"])
def test_a_plugin_that_changes_settings_and_generators_changes_nothing(plugins: PluginFactory, place: str) -> None:
    hooks = {"import": ("", "", DISTURBING), "hook": ("", DISTURBING, ""), "listener": (DISTURBING, "", "")}
    listens, registers, imports = hooks[place]
    plugins.install(
        "disturbing",
        imports
        + HEALTHY.format(kind="loud")
        + "".join(f"    {line}\n" for line in registers.splitlines())
        + LISTENER.format(then="pass")
        + "".join(f"    {line}\n" for line in listens.splitlines()),
    )
    names: dict[str, Callable[[], object]] = {}
    exec(STATE, names)
    before = names["state"]()
    found = registry()
    found.kinds("student")
    found.listeners()
    found.emit(Event("started", "key", "label"))
    assert record_of(found, "disturbing").error is None
    assert names["state"]() == before


@pytest.mark.slow
def test_a_plugin_that_is_the_first_to_import_torch_changes_nothing(plugins: PluginFactory) -> None:
    plugins.install("disturbing", DISTURBING + HEALTHY.format(kind="loud"))
    program = (
        f"import sys; sys.path.insert(0, {str(plugins.directory)!r})\n"
        "from sizetransfer.registry import Registry\n"
        "found = Registry(built_in=()); assert 'torch' not in sys.modules\n"
        "finders = list(sys.meta_path)\n"
        "assert 'loud' in found.kinds('student'), found.plugins()\n"
        f"{STATE}\nassert 'exec_module' not in vars(torch.__loader__) and finders == sys.meta_path\n"
        "print(state()[:6]); print(state()[6] == torch.rand(3, generator=torch.Generator().manual_seed(3)).tolist())"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", f"{STATE}\nprint(state()[:6]); print(False)"], capture_output=True, text=True, check=True
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stdout == fresh.stdout, found.stderr


def test_what_is_wrong_with_a_built_in_is_raised(plugins: PluginFactory) -> None:
    plugins.module(
        "core_broken",
        "from sizetransfer.registry.hooks import hookimpl\n@hookimpl\ndef register_student(register): pass\n",
    )
    with pytest.raises(PluginError, match="register_students"):
        Registry(built_in=("core_broken",)).kinds("student")


def test_discovery_works_in_a_new_process(plugins: PluginFactory) -> None:
    plugins.healthy("toy-students", "toy")
    program = (
        f"import sys; sys.path.insert(0, {str(plugins.directory)!r})\n"
        "from sizetransfer.registry import default_registry\n"
        "record, = [r for r in default_registry()._discovered() if r.record.distribution == 'toy-students']\n"
        "print(record.record.status, 'toy_students' in sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["found", "False"]


def test_the_geometry_of_a_teacher_is_known_before_it_is_built() -> None:
    for kind, entry in default_registry().kinds("teacher").items():
        if kind in {"dataset", "functions"}:  # of somebody's files and functions
            continue
        assert entry.spec_class.geometry == entry.spec_class().build().field.geometry, kind


# --- figures ----------------------------------------------------------------------------------------------------------

FIGURE = """
from sizetransfer.registry.hooks import hookimpl

@hookimpl
def register_figures(register):
    register({name!r}, {function})
"""


def test_figures_come_in_through_a_hook(plugins: PluginFactory) -> None:
    plugins.install("painter", FIGURE.format(name="bars", function="len"))
    found = registry()
    assert found.figure("bars") is len
    assert found.figures() == {"bars": len}
    assert record_of(found, "painter").provides == ("figure bars",)
    assert "regimes" in Registry(find_plugins=list).figures()


@pytest.mark.parametrize(("name", "function"), [("no/file", "len"), ("", "len"), (3, "len"), ("bars", "7")])
def test_what_is_no_figure_is_refused(plugins: PluginFactory, name: object, function: str) -> None:
    plugins.install("painter", FIGURE.format(name=name, function=function))
    found = registry()
    assert found.figures() == {}
    assert "A figure is a name that a file can have and a function" in str(record_of(found, "painter").error)


def test_names_that_are_asked_for_and_not_there_are_refused_with_their_place(plugins: PluginFactory) -> None:
    plugins.install("painter", FIGURE.format(name="bars", function="len"))
    found = registry()
    found.require("figure", ["bars"], where="report.figures")
    with pytest.raises(SpecError, match="Did you mean 'bars'") as caught:
        found.require("figure", ["bars", "bras"], where="report.figures")
    assert caught.value.where == "report.figures"
