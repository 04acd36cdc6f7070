"""The hook through which ``sizetransfer verify`` comes in; imports nothing heavy."""

from __future__ import annotations

import click

from sizetransfer.registry.hooks import hookimpl


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add the group ``verify``."""
    from sizetransfer_verification.command_line import verify

    cli.add_command(verify)
