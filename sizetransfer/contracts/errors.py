"""The errors that users see: what happened, where, what was expected, what was found, how to fix it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class SizetransferError(Exception):
    """An error whose message a user can act on.

    Args:
        what: the problem, in one sentence.
        where: the place: a path in a YAML file, a tensor, a directory, a plugin.
        expected: what would have been right.
        got: what was there instead.
        fix: what to do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        got: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what, where, expected, got, fix)
        self.what = what
        self.where = where
        self.expected = expected
        self.got = got
        self.fix = fix

    def __str__(self) -> str:
        labelled = [("where", self.where), ("expected", self.expected), ("got", self.got), ("fix", self.fix)]
        lines = [f"  {label + ':':<10}{text}" for label, text in labelled if text]
        return "\n".join([self.what, *lines])

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.expected, self.got, self.fix)


def _rebuild(
    cls: type[SizetransferError],
    what: str,
    where: str | None,
    expected: str | None,
    got: str | None,
    fix: str | None,
) -> SizetransferError:
    return cls(what, where=where, expected=expected, got=got, fix=fix)


def described(error: BaseException) -> str:
    """Type and message of an error, in at most 500 letters; a message that cannot be read does no harm."""
    try:
        text = str(error)
    except (Exception, SystemExit) as second:  # of a stranger's class
        text = f"(its message cannot be read: {type(second).__name__})"
    shown = text[:500].encode(errors="backslashreplace").decode()  # half a character cannot be printed
    return f"{type(error).__name__}: {shown}"


@contextmanager
def exit_refused(where: str) -> Iterator[None]:
    """Within the block, somebody's ``sys.exit`` is a failure of what asked for it, not the end of the process.

    Args:
        where: what was asked for.

    Raises:
        SpecError: the block called ``sys.exit``, with success or not.
    """
    try:
        yield
    except SystemExit as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise SpecError(
            "The code behind it called sys.exit, which ends nothing here.",
            where=where,
            expected="code that returns, or raises an error",
            got=f"SystemExit: {error} ({frame.filename}, line {frame.lineno})",
            fix="raise an error that says what is wrong instead; if the code is a plugin's, update or uninstall it",
        ) from error


class SpecError(SizetransferError):
    """A specification is wrong: an unknown name, a wrong type or range, malformed YAML."""


class PluginError(SizetransferError):
    """A plugin could not be found, imported or registered, or its names clash with another's."""


class OracleError(SizetransferError):
    """A teacher was asked for something that it cannot answer, or answered with something impossible."""


class ConformanceError(SizetransferError):
    """A teacher or a student breaks its contract."""


class RunError(SizetransferError):
    """A run could not start, go on or be read back."""


class NonFiniteError(RunError):
    """A loss, a gradient or a score is infinite or not a number; the trial stops at its last checkpoint."""
