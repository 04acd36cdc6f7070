"""Whether a local model of one's own data transfers to larger systems, from the data alone.

Read in this order:

- :mod:`~sizetransfer.diagnosis.from_data.question`: what is asked;
- :mod:`~sizetransfer.diagnosis.from_data.fields`: arrays as stored fields;
- :mod:`~sizetransfer.diagnosis.from_data.classes`: whether sites are alike, or of sublattices;
- :mod:`~sizetransfer.diagnosis.from_data.tables`: second moments by group of fields;
- :mod:`~sizetransfer.diagnosis.from_data.precision`: the law of short-ranged precision, or that there is none;
- :mod:`~sizetransfer.diagnosis.from_data.ranges`: covariance ranges of score and denoiser;
- :mod:`~sizetransfer.diagnosis.from_data.laws`: the law at every size, measured or forecast;
- :mod:`~sizetransfer.diagnosis.from_data.evidence`: what a verdict rests on, and the verdict;
- :mod:`~sizetransfer.diagnosis.from_data.diagnosis`: :func:`diagnose_fields`, which puts them together;
- :mod:`~sizetransfer.diagnosis.from_data.text`: the same as text.
"""

from sizetransfer.diagnosis.from_data.diagnosis import DataDiagnosis, diagnose_fields
from sizetransfer.diagnosis.from_data.fields import ArrayFields
from sizetransfer.diagnosis.from_data.question import DataQuestion
from sizetransfer.diagnosis.from_data.steps import Step

__all__ = [
    "ArrayFields",
    "DataDiagnosis",
    "DataQuestion",
    "Step",
    "diagnose_fields",
]
