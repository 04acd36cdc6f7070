"""Promises of teachers, students and measures that a run holds them to, whoever wrote them.

The conformance suite tries a contract on many cases, when an author asks for it. A run holds the objects at hand to
what its numbers rest on, always, at a cost that nobody notices:

- :func:`check_once`, before anything is trained: one sample, its score and the student's answer;
- :func:`watched`, at every call: shapes, batch, dtype, device, finiteness, dead sites, inputs left as they were;
- :func:`hold_radius`, once a student is trained: nothing outside the declared radius decides a score;
- :func:`weights_unchanged`, around a measure: it changes no weights;
- :func:`checked`: what a measure returns are numbers with errors and counts.

Each raises a :class:`~sizetransfer.contracts.errors.ConformanceError` that names whose promise is broken.
"""

from sizetransfer.runs.promises.measured import checked
from sizetransfer.runs.promises.preflight import check_once
from sizetransfer.runs.promises.radius import hold_radius
from sizetransfer.runs.promises.watch import Watch, watched
from sizetransfer.runs.promises.weights import weights_unchanged

__all__ = ["Watch", "check_once", "checked", "hold_radius", "watched", "weights_unchanged"]
