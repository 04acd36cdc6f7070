"""What to expect of a teacher and a student before any grid of runs: ranges, shares, irreducible error, the bound.

Read in this order:

- :mod:`~sizetransfer.prediction.question`: what is asked;
- :mod:`~sizetransfer.prediction.responses`: the response at one size and noise level, and how far it can be trusted;
- :mod:`~sizetransfer.prediction.irreducible`: the best score of a radius, where it is known;
- :mod:`~sizetransfer.prediction.theorem`: Theorem 1 by patch and size, and the light cone of influence weights;
- :mod:`~sizetransfer.prediction.law`: second moments of the law, what filters miss of it and generate;
- :mod:`~sizetransfer.prediction.pairs`: the same of boxes and graphs;
- :mod:`~sizetransfer.prediction.targets`: fields with their scores, where the law is not Gaussian;
- :mod:`~sizetransfer.prediction.evidence`: what a verdict rests on, and the verdict (:mod:`sizetransfer.verdict`);
- :mod:`~sizetransfer.prediction.forecast`: :func:`predict`, which puts them together;
- :mod:`~sizetransfer.prediction.text`: the same as text.
"""

from sizetransfer.prediction.forecast import Forecast, Prediction, ResponseRow, SigmaNeeded, StudentError, predict
from sizetransfer.prediction.question import PredictionRule, PredictionSpec, describe_prediction_rule
from sizetransfer.prediction.theorem import LightCone, TheoremRow

__all__ = [
    "Forecast",
    "LightCone",
    "Prediction",
    "PredictionRule",
    "PredictionSpec",
    "ResponseRow",
    "SigmaNeeded",
    "StudentError",
    "TheoremRow",
    "describe_prediction_rule",
    "predict",
]
