"""Development tasks: ``nox -s quickstart``, ``nox -s tests``, ``nox --list``.

Every session installs the versions of ``constraints.txt`` into its own virtual environment with plain pip. With
``--no-venv`` nothing is installed and the tools of the active environment are used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import nox

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
EVERYTHING = (".", "./verification", "./plugins/example", "./plugins/graph")
KERNELS = ("MKL_CBWR=COMPATIBLE", "MKL_CBWR=AVX2", "ATEN_CPU_CAPABILITY=default", "ONEDNN_MAX_CPU_ISA=AVX2")
"""Settings by which the libraries compute as on an older processor: MKL, torch's own vector code, oneDNN."""
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True
nox.options.error_on_external_run = True
nox.options.sessions = ["tests", "lint", "types"]


def pinned(name: str) -> str:
    """Return the requirement ``name==version`` of ``constraints.txt``."""
    pin = re.search(rf"^{re.escape(name)}==\S+", CONSTRAINTS.read_text(), flags=re.MULTILINE)
    if pin is None:
        raise ValueError(f"constraints.txt has no version of {name}")
    return pin.group()


def install(session: nox.Session, *groups: str, distributions: Sequence[str] = (".",)) -> None:
    """Install dependency groups and distributions of this repository, by default the core alone.

    torch comes first and alone: where an index offers the pinned version as a CPU build, pip takes that one.
    """
    if session.virtualenv.venv_backend == "none":
        return
    requirements = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    if distributions:
        session.install("--quiet", "--constraint", str(CONSTRAINTS), pinned("torch"))
    session.install("--quiet", "--constraint", str(CONSTRAINTS), *requirements, *distributions)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Run the experiment `quickstart`; the last line says where the report is. Arguments go to `sizetransfer run`."""
    install(session)
    session.run("sizetransfer", "run", "quickstart", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite. Arguments go to pytest."""
    install(session, "tests", "docs", distributions=EVERYTHING)
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def processors(session: nox.Session) -> None:
    """Run the test suite with the kernels of other processors, one setting after the other. Arguments go to pytest.

    Libraries add in another order on another processor, so a test that passes by the last bits of one machine fails
    elsewhere. Four times the suite: an hour on two cores. Older kernels are slower, hence the longer limit of a test.
    """
    install(session, "tests", "docs", distributions=EVERYTHING)
    failed = []
    for setting in KERNELS:
        session.log(setting)
        name, _, value = setting.partition("=")
        environment = {"OMP_NUM_THREADS": "1", name: value}
        command = ("pytest", "-n", "2", "--dist", "worksteal", "--timeout", "600", *session.posargs)
        try:
            session.run(*command, env=environment)
        except nox.command.CommandFailed:
            failed.append(setting)
    if failed:
        session.error(f"failed with {', '.join(failed)}")


@nox.session
def adversary(session: nox.Session) -> None:
    """Kill a small run before every change of a file and at a hundred random moments; about an hour of one core."""
    install(session, "tests", distributions=EVERYTHING)
    arguments = ("-m", "adversary", "-n", "2", "--dist", "worksteal", "tests/adversary")
    session.run("pytest", *arguments, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def kill_matrix(session: nox.Session) -> None:
    """Run every check on every mutant and write docs/_static/kill-matrix.csv; fails if a mutant survives."""
    install(session, "tests", distributions=EVERYTHING)
    session.run("python", "tests/verification/kill_matrix.py", env={"OMP_NUM_THREADS": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and the layers of the architecture."""
    install(session, "lint", distributions=())
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", env={"PYTHONPATH": "verification"})


@nox.session
def types(session: nox.Session) -> None:
    """Check types. Arguments go to mypy."""
    install(session, "types", distributions=EVERYTHING)
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build/html; a warning is an error."""
    install(session, "docs", distributions=EVERYTHING)
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", *session.posargs, "docs", "docs/_build/html")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure speed. Arguments go to pytest."""
    install(session, "benchmarks")
    session.run("pytest", "benchmarks", "-p", "no:xdist", "--benchmark-sort=name", *session.posargs)


@nox.session
def calibration(session: nox.Session) -> None:
    """Count what the verdict gets wrong on Gaussian fields, where the truth is exact, on spins, and from data alone."""
    install(session)
    short = {"data.py": ("--cases", "8"), "coverage.py": ("--cases", "20")}
    for study in ("run.py", "ising.py", "data.py", "coverage.py"):
        arguments = session.posargs or short.get(study, ())
        session.run("python", f"calibration/{study}", *arguments, env={"OMP_NUM_THREADS": "1"})
