"""What to expect of a teacher and a student before any grid of runs: ranges, shares, irreducible error, the bound.

Read in this order:

- :mod:`~sizetransfer.diagnosis.question`: what is asked;
- :mod:`~sizetransfer.diagnosis.responses`: the response at one size and noise level, and how far it can be trusted;
- :mod:`~sizetransfer.diagnosis.irreducible`: the best score of a radius, where it is known;
- :mod:`~sizetransfer.diagnosis.theorem`: Theorem 1 by patch and size, and the light cone of influence weights;
- :mod:`~sizetransfer.diagnosis.law`: second moments of the law, what filters miss of it and generate;
- :mod:`~sizetransfer.diagnosis.pairs`: the same of boxes and graphs;
- :mod:`~sizetransfer.diagnosis.targets`: fields with their scores, where the law is not Gaussian;
- :mod:`~sizetransfer.diagnosis.evidence`: what a verdict rests on, and the verdict (:mod:`sizetransfer.verdict`);
- :mod:`~sizetransfer.diagnosis.prediction`: what is found, as data, and :mod:`~sizetransfer.diagnosis.text`: as text;
- :mod:`~sizetransfer.diagnosis.forecast`: :func:`predict`, which puts them together.
"""

from sizetransfer.diagnosis.forecast import predict
from sizetransfer.diagnosis.prediction import Forecast, Prediction, ResponseRow, SigmaNeeded, StudentError
from sizetransfer.diagnosis.question import PredictionRule, PredictionSpec, describe_prediction_rule
from sizetransfer.diagnosis.theorem import LightCone, TheoremRow

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
