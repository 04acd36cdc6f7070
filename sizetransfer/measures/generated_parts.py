"""What measures of generated fields say of their numbers (:mod:`sizetransfer.contracts.parts`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sizetransfer.contracts.parts import Part, generated
from sizetransfer.measures.marginal_ratios import RATIOS

_RATIOS = dict(zip(RATIOS, generated("rollout", "generated fields").values(), strict=True))
_DISTANCES = {
    f"{name}_distance": Part(
        "generated observable", f"Wasserstein distance of the marginal of a {name}", unit="field", lower_is_better=True
    )
    for name in ("site", "patch")
}
_DEVIATION = Part(
    "generated observable", "mean absolute deviation of local observables", unit="relative", lower_is_better=True
)

REVERSE_PROCESS_PARTS: Mapping[str, Part] = {
    "sigma_start": Part("control", "noise at the start", unit="field", serves="rollout: noise at the start"),
    "sigma_needed": Part("control", "noise that the size needs", unit="field", serves="rollout: noise needed"),
    "start_exact": Part("control", "whether the start are exact fields with noise", known="exact"),
    **_RATIOS,
    "control_exact": Part("control", "whether the control is the exact score", known="exact"),
    **{
        f"control_{name}": replace(part, role="control", label=f"{part.label}, by the best known score", serves="")
        for name, part in _RATIOS.items()
    },
}
"""Where the process starts, the ratios of second moments, and those of the best known score in the student's place."""

OBSERVABLE_PARTS: Mapping[str, Part] = {
    "observable_mae": _DEVIATION,
    **_DISTANCES,
    "*_control": Part("control", "the same number of other exact fields", lower_is_better=True),
    "control_*": Part("control", "the same number of fields that the best known score generates"),
    "*_generated": Part("generated observable", "an observable of generated fields"),
    "*_exact": Part("generated observable", "an observable of exact fields"),
    "*_difference": Part("generated observable", "an observable of generated less exact fields"),
}
"""Local observables over all sites. Whole names come before patterns, so that ratios keep theirs."""

_BY_CLASS = {
    "*/{class}/count": Part("control", "sites or pairs of a class", "class"),
    "*/{class}/*/generated": Part("generated observable", "an observable of a class, generated", "class"),
    "*/{class}/*/exact": Part("generated observable", "an observable of a class, exact", "class"),
    "*/{class}/*/deviation": Part("generated observable", "deviation of an observable of a class", "class", "relative"),
    "*/{class}/*/control": Part("control", "deviation of other exact fields", "class", "relative"),
}

BY_CLASS_PARTS: Mapping[str, Part] = {
    **_BY_CLASS,
    "*_mae_control": replace(_DEVIATION, role="control", label="deviation of other exact fields"),
    "*_mae": _DEVIATION,
}
"""Local observables by class of sites and of pairs, at the index of the class."""
