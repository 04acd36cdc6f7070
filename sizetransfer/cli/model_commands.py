"""Commands about a model that exists, and the options by which one is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import click

from sizetransfer.cli.run_commands import as_json
from sizetransfer.contracts.errors import SpecError

CONVENTIONS = (
    "weights",
    "inputs",
    "predicts",
    "process",
    "timestep",
    "scale",
    "shift",
    "data_range",
    "sigma_data",
    "layout",
    "channel_order",
    "casts",
)
"""Options that are fields of the student ``module``."""


def _numbers(_: click.Context, option: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        return tuple(float(part) for part in value.strip("[]()").replace(",", " ").split())
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 0,255", param=option) from None


def _scale(_: click.Context, __: click.Parameter, value: str | None) -> object:
    """A number, numbers, or one of the words."""
    parts = (value or "").strip("[]()").replace(",", " ").split()
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        return value
    if value is None or not numbers:
        return value
    return numbers[0] if len(numbers) == 1 else numbers


def _sizes(_: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
    return tuple(int(number) for number in _numbers(_, option, value) or ())


def model_options(command: Callable[..., Any], *, layout: str = "--layout") -> Callable[..., Any]:
    """The options that say how a module is called and what it returns.

    Args:
        command: gets them.
        layout: what the option of the module's layout is called.
    """
    options = (
        click.option("--weights", help="File of its weights: .safetensors, or .pt with numbers alone."),
        click.option("--arguments", help="Keyword arguments of the factory, as JSON: '{\"width\": 32}'."),
        click.option("--inputs", help="What it is called with: 'x, sigma', 'sample=unit_x, timestep=timestep'."),
        click.option("--predicts", help="score, clean, noise, v or preconditioned."),
        click.option("--process", help="ve, vp or edm.  [default: ve]"),
        click.option("--timestep", help="ddpm-linear, scaled-linear, cosine, or a .npy file of alpha-bar."),
        click.option("--scale", callback=_scale, help="Units of the data in one of the model: 0.81, unit or [-1,1]."),
        click.option("--shift", callback=_scale, help="Of the data that is zero in the model's units."),
        click.option("--data-range", callback=_numbers, help="Smallest and largest datum, for --scale [-1,1]: 0,255."),
        click.option("--sigma-data", type=float, help="Deviation of the data in EDM's preconditioning."),
        click.option(layout, help="channels-first, channels-last or no-channels."),
        click.option(
            "--channel-order", callback=_sizes, help="Channel of the data that each of the model's is: 2,1,0."
        ),
        click.option("--casts", is_flag=True, help="It answers in a precision of its own."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def taken(options: dict[str, Any], *, layout: str = "layout") -> dict[str, Any]:
    """Take the conventions out of the options of a command: those that were given, by name.

    Args:
        options: of the command.
        layout: the name of the module's layout among them.

    Raises:
        SpecError: ``--arguments`` is no JSON mapping.
    """
    given = {name: options.pop(name) for name in (layout if name == "layout" else name for name in CONVENTIONS)}
    conventions = {name: value for name, value in given.items() if value not in {None, (), False}}
    arguments = options.pop("arguments")
    if arguments is not None:
        conventions["arguments"] = _arguments(arguments)
    return conventions


def _arguments(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        value = f"{error}"
    if isinstance(value, Mapping):
        return value
    raise SpecError(
        "The arguments are no mapping.",
        where="--arguments",
        expected="JSON such as '{\"width\": 32}'",
        got=str(value),
        fix="quote the mapping for the shell, and its names with double quotes",
    )


@click.command("radius")
@click.argument("model")
@click.option("--channels", type=click.IntRange(min=1), default=1, show_default=True, help="Of the fields.")
@click.option("--dim", type=click.IntRange(1, 3), default=2, show_default=True, help="Axes of the lattice.")
@click.option("--walls", is_flag=True, help="An open box in place of a torus.")
@click.option("--condition-channels", type=click.IntRange(min=0), default=0, help="Of the context's condition.")
@click.option("--size", "sizes", callback=_sizes, help="Sites along an axis: 16,17,33.  [default: grown]")
@click.option("--sigma", "sigmas", callback=_numbers, help="Noise levels.  [default: 0.1,1,10]")
@click.option("--as-is", is_flag=True, help="Leave the weights where they are.")
@click.option("--layers", is_flag=True, help="Show from where every layer reads.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Names fields, sites and moves.")
@model_options
@as_json
def radius_command(
    *,
    model: str,
    channels: int,
    dim: int,
    walls: bool,
    condition_channels: int,
    as_is: bool,
    layers: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure from where a torch module reads: package:Net, or a student's kind or mapping.

    No teacher, training or specification is needed. What reads the whole field, pads, or knows its place is named with
    the layer that does. The module is found on Python's path or in the working directory, and its code is run.
    """
    from sizetransfer import api
    from sizetransfer.cli.console import show_json
    from sizetransfer.contracts.specs import FieldInfo

    field = FieldInfo(dim=dim, channels=channels, periodic=not walls, condition_channels=condition_channels)
    conventions = taken(options)
    found = api.radius(model, field=field, moved=not as_is, **options, **conventions)
    if as_json:
        show_json(found.to_json())
    else:
        click.echo(found.text(layers=layers))
