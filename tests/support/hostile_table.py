"""What plugins may do wrong, and what comes of it: the rows of the tests, and of the page of the documentation.

``python tests/support/hostile_table.py`` writes the table into ``docs/adversary.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "adversary.md"
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"

OUTCOMES = {
    "no effect": ("nothing: its numbers are those of its healthy model", "everything", 0),
    "training fails": ("the training failed", "the other trials", 3),
    "measurement fails": ("the measurement failed", "its training, other measurements, the other trials", 3),
    "refused": ("the run is refused before anything trains", "nothing", 2),
    "run stops": ("the run stops with an error", "what was finished before", 1),
    "unfinished": ("the run ends; what was not computed is listed", "what was finished", 0),
    "interrupted": ("the run was interrupted", "what was finished before", 130),
}
"""By name: what the run says, what is stored, exit code of the command line."""


@dataclass(frozen=True)
class Row:
    """One misbehaviour.

    Attributes:
        who: teacher, student, measure, executor or listener, as the table says it.
        does: what it does.
        outcome: one of :data:`OUTCOMES`.
        says: a part of what the run says.
        executor: where the trials run.
    """

    who: str
    does: str
    outcome: str
    says: str = ""
    executor: str = "serial"

    def __str__(self) -> str:
        return f"{self.who}: {self.does}" + (" (local)" if self.executor == "local" else "")


STOPPED = "stopped with an error"
FAILURES = {
    "raise": "ZeroDivisionError: on purpose",
    "exit": "SystemExit",
    "escape": "Escape: past except Exception",
    "raise the unspeakable": "its message cannot be read",
    "raise a long story": "ValueError: xxx",
    "raise half a character": "ValueError: ",
}
HARMLESS = ("print", "change settings", "draw from generators", "make warnings errors", "change the directory")

TABLE = (
    *(Row("teacher, when built", does, "refused", says) for does, says in FAILURES.items()),
    *(Row("teacher, when built", does, "no effect") for does in HARMLESS),
    *(Row("teacher", does, "training fails", says) for does, says in list(FAILURES.items())[:3]),
    *(Row("teacher", does, "no effect") for does in HARMLESS),
    Row("teacher", "turn gradients off", "training fails", "does not require grad"),
    Row("teacher", "one field of many", "training fails", "The teacher returns a field of the wrong shape"),
    Row("teacher", "another dtype", "training fails", "The teacher returns a field of the wrong dtype"),
    Row("teacher", "nan", "training fails", "The teacher returns a field that is not finite"),
    Row("teacher", "mutate the sample", "training fails", "The teacher changes its input x"),
    *(Row("student, when built", does, "refused", says) for does, says in list(FAILURES.items())[:3]),
    *(Row("student, when built", does, "no effect") for does in (*HARMLESS, "turn gradients off")),
    *(Row("student", does, "training fails", says) for does, says in FAILURES.items()),
    *(Row("student", does, "no effect") for does in HARMLESS),
    Row("student", "change the device", "training fails", "meta tensor"),
    Row("student", "turn gradients off", "training fails", "does not require grad"),
    Row("student", "one row", "training fails", "The student returns a score of the wrong shape"),
    Row("student", "another dtype", "training fails", "The student returns a score of the wrong dtype"),
    Row("student", "nan", "training fails", "The student returns a score that is not finite"),
    Row("student", "mutate the field", "training fails", "The student changes its input x"),
    Row("student", "read the whole field", "training fails", "The student reads outside its declared radius"),
    Row("student", "count in a buffer", "measurement fails", "The weights have changed"),
    Row("student", "end the process", "training fails", "has died", "local"),
    Row("student", "hang", "interrupted", "Interrupted"),
    Row("student", "hang", "interrupted", "Interrupted", "local"),
    *(Row("measure", does, "measurement fails", says) for does, says in FAILURES.items()),
    *(Row("measure", does, "no effect") for does in (*HARMLESS, "turn gradients off", "nothing", "nan")),
    Row("measure", "raise half way", "measurement fails", "ZeroDivisionError: on purpose"),
    Row("measure", "negative error", "measurement fails", "The measure returns a negative error"),
    Row("measure", "negative standard error", "measurement fails", "The measure returns a negative standard error"),
    Row("measure", "negative count", "measurement fails", "The measure returns no count as n"),
    Row("measure", "the same twice", "measurement fails", "The measure returns a number twice"),
    Row("measure", "half a character", "measurement fails", "The measure returns a number without a name"),
    Row("measure", "a value without a repr", "measurement fails", "The measure returns no number as value"),
    Row("measure", "no measurement", "measurement fails", "The measure returns no measurement"),
    Row("measure", "mutate weights", "measurement fails", "The weights have changed"),
    Row("measure", "train", "measurement fails", "The weights have changed"),
    Row("measure", "end the process", "measurement fails", "has died", "local"),
    *(Row("executor", does, "run stops", says) for does, says in list(FAILURES.items())[:3]),
    Row("executor", "no result", "run stops", "a result that is no TrialResult"),
    Row("executor", "give up", "unfinished", "Not computed"),
    Row("executor", "change settings", "no effect"),
    Row("executor", "print", "no effect"),
    *(Row("listener", does, "no effect", "A plugin is told nothing more") for does in list(FAILURES)[:4]),
    *(Row("listener", does, "no effect") for does in ("print", "change settings", "draw from generators")),
)


def table() -> str:
    """The rows in Markdown."""
    lines = ["| who | does | what comes of it | what is kept | exit code |", "|---|---|---|---|---|"]
    for row in TABLE:
        text, kept, code = OUTCOMES[row.outcome]
        says = f"; “{row.says}”" if row.says else ""
        where = " (local executor)" if row.executor == "local" else ""
        lines.append(f"| {row.who} | {row.does}{where} | {text}{says} | {kept} | {code} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the table that it should have."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
