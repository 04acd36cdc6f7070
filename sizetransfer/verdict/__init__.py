r"""The verdict: from errors, references and consequences to one word, its reason and what would decide it.

:func:`judge` takes the evidence on one student of one teacher, wherever it comes from, and asks three questions. *Was
it learned?* *Does it stay* when the size grows? *What does it cost*, by its locality and in what is generated? The word
is the first that applies of *not learned*, *degrades with size*, *radius-limited*, *transfers* and *undecided*. Every
claim is a test at a stated level; *transfers* needs that everything against it is excluded, so that what is missing, or
too uncertain, ends as *undecided* with what would decide it.

>>> from sizetransfer.contracts.quantity import Quantity
>>> from sizetransfer.verdict import CellEvidence, ScoreError, TrainingEvidence, judge
>>> error = Quantity.estimated(0.26, 0.002, n=32)
>>> errors = (ScoreError(0.0, 32, error), ScoreError(0.0, 64, error))
>>> cell = CellEvidence("flow", "cnn", 4, 32, (32, 64), (TrainingEvidence(0, errors),))
>>> judge(cell).word
'undecided'
>>> judge(cell).what_would_decide
('the null error from the same fields: a measure of linear references',)
"""

from sizetransfer.verdict.evidence import (
    CLEAN,
    CellEvidence,
    Consequence,
    DenoisingLosses,
    LargerStudent,
    LawChange,
    Reference,
    ScoreError,
    TrainingEvidence,
)
from sizetransfer.verdict.outcome import WORDS, GeneratedNumbers, Judgement, LevelNumbers, SizeNumbers, Verdict, Word
from sizetransfer.verdict.rule import judge
from sizetransfer.verdict.spec import VerdictSpec, describe

__all__ = [
    "CLEAN",
    "WORDS",
    "CellEvidence",
    "Consequence",
    "DenoisingLosses",
    "GeneratedNumbers",
    "Judgement",
    "LargerStudent",
    "LawChange",
    "LevelNumbers",
    "Reference",
    "ScoreError",
    "SizeNumbers",
    "TrainingEvidence",
    "Verdict",
    "VerdictSpec",
    "Word",
    "describe",
    "judge",
]
