"""The pictures of the tutorials: a small field, a large one, and what each radius is worth."""

import numpy as np
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def fields_and_errors(path, small, large, *diagnoses):
    """Draw two fields to one scale, and the errors of the best linear filters by radius.

    Args:
        path: of the picture.
        small, large: fields of shape (L, L).
        diagnoses: one or two, each with the name of its panel: (name, found).
    """
    shares = [small.shape[0], large.shape[0], *[1.2 * large.shape[0]] * len(diagnoses)]
    figure = Figure(figsize=(5 + 3.6 * len(diagnoses), 3.6), layout="constrained")
    panels = figure.subplots(1, len(shares), width_ratios=shares)
    limit = 3 * large.std()
    for panel, field in zip(panels, (small, large), strict=False):
        panel.imshow(field, cmap="RdBu_r", vmin=-limit, vmax=limit)
        panel.set_title(f"L = {field.shape[0]}")
        panel.set_xticks([])
        panel.set_yticks([])
    for panel, (name, found) in zip(panels[2:], diagnoses, strict=True):
        errors_by_radius(panel, found)
        panel.set_title(name)
    figure.savefig(path, dpi=130)


def errors_by_radius(panel, found):
    """The score's error as lines, the denoiser's as dashes, at the four largest noise levels."""
    for colour, level in zip(COLOURS, found.ranges[-4:], strict=False):
        radii = [one.radius for one in level.errors]
        for name, style in (("score", "-"), ("denoiser", "--")):
            errors = np.array([getattr(one, name).value for one in level.errors])
            label = f"σ = {level.sigma:g}" if name == "score" else None
            panel.semilogy(radii, np.where(errors > 1e-3, errors, np.nan), style, color=colour, marker=".", label=label)
    panel.axhline(0.1, color="grey", linewidth=0.8)
    panel.set_ylim(1e-3, 12)  # room for the legend
    panel.set_xlabel("radius")
    panel.set_ylabel("error: score —, denoiser – –")
    panel.legend(frameon=False, ncols=2, loc="upper right")
