"""What to expect of a teacher and a student before any grid of runs: ranges, shares, irreducible error, the bound.

Read in this order:

- :mod:`~sizetransfer.prediction.question`: what is asked, and the rule of the predicted verdict;
- :mod:`~sizetransfer.prediction.responses`: the response at one size and noise level, and how far it can be trusted;
- :mod:`~sizetransfer.prediction.irreducible`: the best score of a radius, where it is known;
- :mod:`~sizetransfer.prediction.theorem`: Theorem 1 by patch and size, and the light cone of influence weights;
- :mod:`~sizetransfer.prediction.forecast`: :func:`predict`, which puts them together and judges.
"""

from sizetransfer.prediction.forecast import Forecast, Prediction, ResponseRow, StudentError, predict
from sizetransfer.prediction.question import PredictionRule, PredictionSpec, describe_prediction_rule
from sizetransfer.prediction.theorem import LightCone, TheoremRow

__all__ = [
    "Forecast",
    "LightCone",
    "Prediction",
    "PredictionRule",
    "PredictionSpec",
    "ResponseRow",
    "StudentError",
    "TheoremRow",
    "describe_prediction_rule",
    "predict",
]
