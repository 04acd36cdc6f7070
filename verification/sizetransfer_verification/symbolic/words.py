r"""Covariance matrices of any dimension, as noncommuting symbols that are rewritten to a normal form.

C is the covariance of the prior, V that of the noise, ``Ci`` and ``Vi`` their inverses, :math:`S=(C+V)^{-1}`. What is
known of them, and what follows from it, is a system of rules:

.. math:: SV\to1-SC,\quad VS\to1-CS,\quad CC^{-1},C^{-1}C,VV^{-1},V^{-1}V\to1,\quad
   SCV^{-1}\to V^{-1}-S,\quad V^{-1}CS\to V^{-1}-S.

Each rule replaces a word by words that are smaller (shorter, or with C in the place of V), so rewriting ends; every
overlap of two left-hand sides gives the same in both ways (a test decides all of them), so by Bergman's diamond lemma
the end does not depend on the order. An equation follows from the definitions if and only if the normal form of the
difference of its sides is zero.

References:
    Bergman, The diamond lemma for ring theory, Advances in Mathematics 29, 1978.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import sympy as sp

C, V, C_INVERSE, V_INVERSE, S = (sp.Symbol(name, commutative=False) for name in ("C", "V", "Ci", "Vi", "S"))

Word = tuple[sp.Symbol, ...]
Combination = Mapping[Word, sp.Expr]

_ONE: Word = ()
RULES: Mapping[Word, Combination] = {
    (S, V): {_ONE: sp.Integer(1), (S, C): sp.Integer(-1)},
    (V, S): {_ONE: sp.Integer(1), (C, S): sp.Integer(-1)},
    (C, C_INVERSE): {_ONE: sp.Integer(1)},
    (C_INVERSE, C): {_ONE: sp.Integer(1)},
    (V, V_INVERSE): {_ONE: sp.Integer(1)},
    (V_INVERSE, V): {_ONE: sp.Integer(1)},
    (S, C, V_INVERSE): {(V_INVERSE,): sp.Integer(1), (S,): sp.Integer(-1)},
    (V_INVERSE, C, S): {(V_INVERSE,): sp.Integer(1), (S,): sp.Integer(-1)},
}


def normal_form(expression: sp.Expr) -> dict[Word, sp.Expr]:
    """Coefficients of the words of an expression after all rules have been applied; empty for zero."""
    result: dict[Word, sp.Expr] = defaultdict(lambda: sp.Integer(0))
    pending = list(_words(expression))
    while pending:
        word, coefficient = pending.pop()
        rewritten = rewrite_once(word)
        if rewritten is None:
            result[word] += coefficient
        else:
            pending += [(part, coefficient * factor) for part, factor in rewritten.items()]
    return {word: coefficient for word, coefficient in result.items() if sp.expand(coefficient) != 0}


def rewrite_once(word: Word, *, start: int = 0) -> dict[Word, sp.Expr] | None:
    """Apply the first rule that fits at or after a place of a word; None where none fits."""
    for place in range(start, len(word)):
        for left, right in RULES.items():
            if word[place : place + len(left)] == left:
                before, after = word[:place], word[place + len(left) :]
                return {(*before, *middle, *after): factor for middle, factor in right.items()}
    return None


def commutative(expression: sp.Expr) -> sp.Expr:
    """The normal form with a commuting symbol for each word, for :func:`~.proof.decide`."""
    terms = normal_form(expression).items()
    return sp.Add(*(coefficient * sp.Symbol("·".join(map(str, word)) or "one") for word, coefficient in terms))


def _words(expression: sp.Expr) -> list[tuple[Word, sp.Expr]]:
    words = []
    for term in sp.Add.make_args(sp.expand(expression)):
        commuting, letters = term.args_cnc()
        word = [base for letter in letters for base, power in [letter.as_base_exp()] for _ in range(int(power))]
        words.append((tuple(word), sp.Mul(*commuting)))
    return words
