"""``sizetransfer new-plugin``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", help="Kind of its student; by default NAME.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to put it; by default ./NAME.")
def new_plugin(name: str, kind: str | None, directory: Path | None) -> None:
    """Write the skeleton of a plugin: a student that passes the conformance suite at once.

    NAME is the name of the distribution, for example my-students.
    """
    from sizetransfer.cli.skeleton import write_plugin

    target = Path(name) if directory is None else directory
    for path in write_plugin(name, target, kind=kind):
        click.echo(path)
    click.echo(f"\nNext: cd {target} && pip install -e '.[tests]' && pytest")
