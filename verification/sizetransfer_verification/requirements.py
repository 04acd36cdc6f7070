"""Libraries that one part of the verification needs and another does not."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from sizetransfer.contracts.errors import PluginError


def require(library: str, purpose: str) -> None:
    """Refuse to go on without an installed, importable library.

    Args:
        library: its import name, for example ``"hypothesis"``.
        purpose: what needs it.

    Raises:
        PluginError: it is not installed, or cannot be imported.
    """
    if find_spec(library) is None:
        raise PluginError(
            f"{purpose} needs the library {library!r}.",
            where="sizetransfer_verification",
            expected=f"{library} installed",
            got="nothing of that name",
            fix=f"pip install {library}",
        )
    try:
        import_module(library)
    except ImportError as error:
        raise PluginError(
            f"{purpose} needs the library {library!r}, which cannot be imported.",
            where="sizetransfer_verification",
            expected=f"an intact installation of {library}",
            got=f"{type(error).__name__}: {error}",
            fix=f"pip install --force-reinstall {library}",
        ) from error
