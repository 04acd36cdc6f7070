"""Identities, their proofs and their negative controls: the values that this package is about. Needs no sympy.

A *formula* is a function that builds the right-hand side of an identity from its ingredients. A *prover* takes a
formula and yields equations: pairs of a label and an expression that must be zero. An identity is proven when every
expression is zero, decided exactly (:mod:`sizetransfer_verification.symbolic.algebra`). A negative control is a wrong
formula, given to the very same prover, which must find an expression that is not zero: a prover that accepts everything
is found out by the controls, a prover that accepts nothing by the identity.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Formula = Callable[..., Any]
Equations = Iterator[tuple[str, Any]]
Prover = Callable[[Formula], Equations]


@dataclass(frozen=True)
class Proof:
    """What the prover decided about one formula.

    Attributes:
        equations: how many equations were decided; the first that does not hold ends the search.
        failing: label of the equation that does not hold; None where all hold.
        remainder: what is left of that equation, a polynomial that is not zero, shortened.
    """

    equations: int
    failing: str | None = None
    remainder: str | None = None

    @property
    def proven(self) -> bool:
        """Whether there was at least one equation and all hold. Nothing to decide is no proof."""
        return self.failing is None and self.equations > 0

    @property
    def refuted(self) -> bool:
        """Whether an equation was found that does not hold."""
        return self.failing is not None


@dataclass(frozen=True)
class NegativeControl:
    """A wrong version of an identity, which its prover must refute.

    Attributes:
        name: slug, unique within the identity.
        statement: the wrong version in LaTeX; the wrong right-hand side where the left-hand side is the identity's.
        formula: the wrong right-hand side, with the arguments of the identity's formula.
    """

    name: str
    statement: str
    formula: Formula


@dataclass(frozen=True)
class Identity:
    """An identity with its proof and its negative controls.

    Attributes:
        name: slug.
        title: one line in words.
        statement: the identity in LaTeX.
        assumptions: what the proof takes for granted, and the sizes to which it is limited.
        source: equation or proposition of the paper, and other literature.
        prover: yields the equations that a formula has to fulfil.
        formula: the right-hand side that is claimed.
        negative_controls: wrong versions, at least one.
    """

    name: str
    title: str
    statement: str
    assumptions: tuple[str, ...]
    source: str
    prover: Prover
    formula: Formula
    negative_controls: tuple[NegativeControl, ...]

    def prove(self) -> Proof:
        """Decide the identity exactly: no sampling, no floating point."""
        return self.decide(self.formula)

    def refute(self, control: NegativeControl) -> Proof:
        """Give a wrong version to the same prover."""
        return self.decide(control.formula)

    def decide(self, formula: Formula) -> Proof:
        """Let the prover decide any formula.

        Raises:
            ConformanceError: an equation is no rational expression with exact coefficients, and cannot be decided.
        """
        return decide(self.prover(formula))


def decide(equations: Equations) -> Proof:
    """Decide equations one after the other, up to the first that does not hold.

    Raises:
        ConformanceError: an equation is no rational expression with exact coefficients.
    """
    from sizetransfer_verification.symbolic.algebra import numerator, shortened

    count = 0
    for label, expression in equations:
        count += 1
        polynomial = numerator(expression, label)
        if polynomial != 0:
            return Proof(count, label, shortened(polynomial))
    return Proof(count)


@dataclass(frozen=True)
class Result:
    """An identity, checked together with its negative controls.

    Attributes:
        identity: what was checked.
        proof: the decision about the identity.
        controls: the decision about each negative control, by its name.
        seconds: wall time of all of it.
    """

    identity: Identity
    proof: Proof
    controls: dict[str, Proof]
    seconds: float

    @property
    def not_refuted(self) -> tuple[str, ...]:
        """Names of the negative controls that the prover let pass."""
        return tuple(name for name, proof in self.controls.items() if not proof.refuted)

    @property
    def passed(self) -> bool:
        """Whether the identity is proven, and its controls, one at least, are all refuted."""
        return self.proof.proven and bool(self.controls) and not self.not_refuted


def check(identity: Identity) -> Result:
    """Prove an identity and refute its negative controls."""
    started = time.perf_counter()
    proof = identity.prove()
    controls = {control.name: identity.refute(control) for control in identity.negative_controls}
    return Result(identity, proof, controls, time.perf_counter() - started)
