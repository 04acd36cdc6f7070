"""Search for a configuration that refutes a claim, and shrink it to the smallest that does."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sizetransfer.contracts.errors import SpecError
from sizetransfer_verification.requirements import require
from sizetransfer_verification.theorem.claim import Claim, Comparison, Configuration

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class _RefutedError(Exception):
    """The configuration refutes the claim."""


@dataclass
class Search:
    """What a search found.

    Attributes:
        claim: what was searched for.
        seed: of the search.
        asked: configurations that were to be drawn.
        examples: different configurations that were compared.
        violations: how many of them refute the claim, those met while shrinking included.
        smallest: the smallest configuration that refutes it, or none.
        comparison: truth and bound there.
        ratios: bound over truth of all configurations drawn before the first violation, where the bound says
            something: it is below two, and the truth is above numerical error.
        tightest: the configuration with the smallest of them.
    """

    claim: Claim[Any]
    seed: int
    asked: int = 0
    examples: int = 0
    violations: int = 0
    smallest: Configuration | None = None
    comparison: Comparison | None = None
    ratios: list[float] = field(default_factory=list)
    tightest: Configuration | None = None

    @property
    def refuted(self) -> bool:
        """Whether a configuration refutes the claim."""
        return self.smallest is not None

    @property
    def as_expected(self) -> bool:
        """Whether a true claim stands and a careless one falls."""
        return self.refuted == self.claim.careless

    @property
    def quantiles(self) -> dict[float, float]:
        """Quantiles of bound over truth; empty where no configuration says something."""
        ordered = sorted(self.ratios)
        return {q: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in QUANTILES} if ordered else {}

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON-compatible data."""
        found = self.comparison
        return {
            "claim": self.claim.name,
            "statement": self.claim.statement,
            "mistake": self.claim.mistake,
            "seed": self.seed,
            "examples": self.examples,
            "violations": self.violations,
            "as_expected": self.as_expected,
            "smallest": None if self.smallest is None else self.smallest.to_json(),
            "truth": None if found is None else found.truth.value,
            "bound": None if found is None else found.bound.value,
            "bound_over_truth": {str(q): value for q, value in self.quantiles.items()},
            "tightest": None if self.tightest is None else self.tightest.to_json(),
        }


def search(claim: Claim[Any] | str, *, examples: int | None = None, seed: int = 0) -> Search:
    """Draw configurations that might refute a claim, guided towards a large truth over bound.

    The search ends at the first violation, which is then shrunk. The same seed draws the same configurations.

    Args:
        claim: a claim, or the name of one.
        examples: configurations to draw; by default what the claim says.
        seed: of the search.

    Raises:
        SpecError: an unknown claim, or fewer than one example.
        PluginError: hypothesis or scipy is not installed.

    Example:
        >>> search("gaussian-steps/missing-weight").refuted
        True
    """
    require("hypothesis", "The search for violations of Theorem 1")
    require("scipy", "The search for violations of Theorem 1")
    if isinstance(claim, str):
        claim = named(claim)
    examples = claim.examples if examples is None else examples
    if examples < 1:
        raise SpecError(
            "A search needs an example.", where="examples", expected="1 or more", got=str(examples), fix="raise it"
        )
    found = Search(claim, seed, asked=examples)
    _run(found, examples)
    return found


def named(name: str) -> Claim[Any]:
    """The claim of that name.

    Raises:
        SpecError: there is none.
    """
    from sizetransfer.contracts.specs import did_you_mean
    from sizetransfer_verification.theorem.catalogue import claims

    known = {claim.name: claim for claim in claims()}
    if name not in known:
        raise SpecError(
            f"There is no claim {name!r}.",
            where="claim",
            expected=f"one of {', '.join(known)}",
            got=name,
            fix=did_you_mean(name, known) or "choose one of these",
        )
    return known[name]


def _run(found: Search, examples: int) -> None:
    import hypothesis
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings

    seen: set[str] = set()

    def test(configuration: Configuration) -> None:
        comparison = found.claim.compare(configuration)
        name = configuration.to_json()
        _note(found, configuration, comparison, new=name not in seen)
        seen.add(name)
        if comparison.refuted:
            raise _RefutedError
        if math.isfinite(comparison.ratio):
            hypothesis.target(comparison.ratio)

    quiet = settings(
        max_examples=examples,
        derandomize=False,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.target, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    # The last run before the error comes out is that of the smallest configuration, which `_note` keeps.
    with suppress(_RefutedError):
        hypothesis.seed(found.seed)(quiet(given(found.claim.strategy())(test)))()
    found.examples = len(seen)


def _note(found: Search, configuration: Configuration, comparison: Comparison, *, new: bool) -> None:
    if comparison.refuted:
        # hypothesis runs a violation again while it shrinks and reports.
        found.violations += new
        found.smallest, found.comparison = configuration, comparison
    elif not found.refuted and comparison.truth.value > 1e3 * comparison.truth.error and comparison.bound.value < 2:
        ratio = comparison.bound.value / comparison.truth.value
        if not found.ratios or ratio < min(found.ratios):
            found.tightest = configuration
        found.ratios.append(ratio)
