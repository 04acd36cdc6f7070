"""``sizetransfer diagnose --data``: the verdict from files of fields, and of a model on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

import click

from sizetransfer.cli.model_commands import model_options, taken
from sizetransfer.contracts.errors import SpecError

Command = TypeVar("Command", bound=Callable[..., Any])

BOUNDARIES = ("periodic", "walls", "crop")


def _files(_: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[object, ...]:
    """Paths, and mappings that are written as YAML."""
    import yaml

    found: list[object] = []
    for value in values:
        try:
            file = yaml.safe_load(value) if value.lstrip().startswith("{") else value
        except yaml.YAMLError as error:
            raise click.BadParameter(f"{value!r} is no mapping: {error}", param=option) from None
        found.append(file)
    return tuple(found)


def data_options(command: Command) -> Command:
    """The options that say where the data are, and which model is judged on them."""
    for option in (
        partial(model_options, layout="--model-layout"),
        click.option("--model", help="With --data: a model that exists, package:build, called as the options say."),
        click.option("--error", type=float, help="With --data: standard error of the score's error that is asked for."),
        click.option("--layout", help="With --data: a letter an axis, such as BHWC.  [default: recognised]"),
        click.option("--boundary", type=click.Choice(BOUNDARIES), help="With --data.  [default: periodic]"),
        click.option(
            "--data",
            multiple=True,
            callback=_files,
            metavar="FILE",
            help="A file of fields, or '{path: f.npz, array: x}'; repeat for other sizes.",
        ),
    ):
        command = cast(Command, option(command))
    return command


def take_data(options: dict[str, Any]) -> dict[str, Any]:
    """Take what :func:`data_options` adds out of the options of a command.

    Raises:
        SpecError: conventions of a model without one, or a model without data.
    """
    given = {name: options.pop(name) for name in ("data", "boundary", "layout", "error", "model")}
    conventions = taken(options, layout="model_layout")
    if (conventions and given["model"] is None) or (given["model"] is not None and not given["data"]):
        raise SpecError(
            "A model is diagnosed on data.",
            where="diagnose, --model and --data",
            expected="--model package:build --data fields.npy",
            got=", ".join(f"--{name.replace('_', '-')}" for name in (*conventions, *(["model"] * (not conventions)))),
            fix="give both, or leave out what says how a model is called",
        )
    return {**given, **conventions}


def show_diagnosis_of_data(
    given: Mapping[str, Any], question: Mapping[str, Any], *, tables: bool, explain: bool, as_json: bool
) -> None:
    """Diagnose and print; what could not be given, and wrong units, fail after everything else was printed.

    Args:
        given: what :func:`take_data` took, and ``teacher``, ``student``, ``train`` and ``out``.
        question: fields of the question.
        tables, explain: for :meth:`sizetransfer.diagnosis.from_data.DataDiagnosis.text`.
        as_json: print data instead.

    Raises:
        SpecError: wrong data or questions, or too few fields for the error that is asked for.
    """
    from sizetransfer import api
    from sizetransfer.cli.console import finite, show_json
    from sizetransfer.diagnosis.joined import WRONG_UNITS

    asked = {name: value for name, value in given.items() if name not in {"data", "out"} and value is not None}
    found: Any = api.diagnose(data=list(given["data"]), **asked, **_of_data(question))
    if given["out"] is not None:
        given["out"].mkdir(parents=True, exist_ok=True)
        path = given["out"] / "diagnosis.json"
        path.write_text(json.dumps(finite(found.to_json()), indent=2, ensure_ascii=False), encoding="utf-8")
    if as_json:
        show_json(found.to_json())
    else:
        click.echo(found.text(tables=tables, explain=explain))
    if found.problems:
        raise SpecError("\n".join(found.problems))
    if given["model"] is not None and found.word == WRONG_UNITS:
        raise SpecError(
            "The model is read in wrong units: nothing else is claimed of it.",
            where=f"--model {given['model']}",
            expected="conventions that are the model's own",
            got="; ".join(finding.text for finding in found.units.findings),
            fix="read it as is said there",
        )


def _of_data(question: Mapping[str, Any]) -> dict[str, Any]:
    """The question without what it says of exact teachers where nothing was asked."""
    return {name: value for name, value in question.items() if name != "rule" and value is not False}
