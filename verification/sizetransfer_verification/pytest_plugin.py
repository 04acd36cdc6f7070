"""``pytest --sizetransfer NAME``: the conformance suite as tests, in anybody's repository.

Every pytest of an environment imports this module, so it imports pytest alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sizetransfer_verification.conformance import BoundCheck


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--sizetransfer`` and ``--sizetransfer-level``."""
    group = parser.getgroup("sizetransfer", "conformance of what plugins of sizetransfer register")
    group.addoption(
        "--sizetransfer",
        action="append",
        default=[],
        metavar="NAME",
        help="check this kind, executor or distribution (again for more)",
    )
    group.addoption("--sizetransfer-level", default="core", choices=["api", "core", "full"], help="default: core")


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put one test for each check behind the tests that were collected."""
    names = config.getoption("--sizetransfer")
    if not names:
        return
    from sizetransfer.contracts.errors import SizetransferError
    from sizetransfer_verification.conformance import BoundCheck, checks, subjects_of

    try:
        subjects = [subject for name in names for subject in subjects_of(name)]
    except SizetransferError as error:
        raise pytest.UsageError(str(error)) from None
    level = config.getoption("--sizetransfer-level")
    bound = [BoundCheck(check, subject) for subject in subjects for check in checks(subject.family, level)]
    items.extend(ConformanceItem.for_check(session, one) for one in bound)


class ConformanceItem(pytest.Item):
    """One check of one subject as a test."""

    bound: BoundCheck

    @classmethod
    def for_check(cls, session: pytest.Session, bound: BoundCheck) -> ConformanceItem:
        """The test for a check."""
        item: ConformanceItem = cls.from_parent(session, name=bound.id)
        item.bound = bound
        return item

    def runtest(self) -> None:
        self.bound()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """The report's own words; a traceback through the suite would not help the plugin's author."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name
