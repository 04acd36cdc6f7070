"""Built-in measures, registered through the same hooks as anybody's: one file a family."""

from __future__ import annotations

from collections.abc import Callable

from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.registry.hooks import hookimpl


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
