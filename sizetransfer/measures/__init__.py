"""Built-in measures and their figures, registered through the same hooks as anybody's: one file a family."""

from __future__ import annotations

from collections.abc import Callable

from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.registry.hooks import FigureFunction, hookimpl


@hookimpl
def register_measures(register: Callable[[type[MeasureSpec]], None]) -> None:
    """Register every built-in measure."""
    from sizetransfer.measures.clean_score import CleanScoreSpec
    from sizetransfer.measures.conditional_generation import ConditionalGenerationSpec
    from sizetransfer.measures.denoising_loss import DenoisingLossSpec
    from sizetransfer.measures.generation import GenerationSpec
    from sizetransfer.measures.jacobian import JacobianSpec
    from sizetransfer.measures.linear_references import LinearReferencesSpec
    from sizetransfer.measures.locality import LocalitySpec
    from sizetransfer.measures.response import ResponseSpec
    from sizetransfer.measures.second_order_forecast import SecondOrderForecastSpec
    from sizetransfer.measures.shell_response import ShellResponseSpec
    from sizetransfer.measures.smoothed_response import SmoothedResponseSpec
    from sizetransfer.measures.smoothed_score import SmoothedScoreSpec

    register(CleanScoreSpec)
    register(ResponseSpec)
    register(JacobianSpec)
    register(LocalitySpec)
    register(LinearReferencesSpec)
    register(SecondOrderForecastSpec)
    register(GenerationSpec)
    register(ConditionalGenerationSpec)
    register(SmoothedResponseSpec)
    register(SmoothedScoreSpec)
    register(DenoisingLossSpec)
    register(ShellResponseSpec)


@hookimpl
def register_figures(register: Callable[[str, FigureFunction], None]) -> None:
    """Register the figures of single measures."""
    from sizetransfer.measures.figures.conditional_generation import conditional_generation
    from sizetransfer.measures.figures.generation import generation
    from sizetransfer.measures.figures.response_profile import response_profile
    from sizetransfer.measures.figures.smoothed_range import smoothed_range

    register("response-profile", response_profile)
    register("smoothed-range", smoothed_range)
    register("generation", generation)
    register("conditional-generation", conditional_generation)
