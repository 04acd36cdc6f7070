"""One model on one's own data: from files and weights to a verdict, cheapest step first.

- :mod:`~sizetransfer.diagnosis.joined.losses`: fields of every size there is, and relative errors from losses on them;
- :mod:`~sizetransfer.diagnosis.joined.diagnosis`: :func:`diagnose_model_on_data`, the steps and when they stop;
- :mod:`~sizetransfer.diagnosis.joined.advice`: what is missing, and what would change the answer;
- :mod:`~sizetransfer.diagnosis.joined.text`: the same as text and as data.
"""

from sizetransfer.diagnosis.joined.diagnosis import WRONG_UNITS, ModelOnData, SizeLosses, diagnose_model_on_data

__all__ = ["WRONG_UNITS", "ModelOnData", "SizeLosses", "diagnose_model_on_data"]
