"""The symbolic proofs: every identity proven, every wrong version refuted, and provers that cannot fail found out."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import sympy as sp
from click.testing import CliRunner

from sizetransfer.contracts.errors import ConformanceError, PluginError, SpecError
from sizetransfer_verification.symbolic import (
    Identity,
    NegativeControl,
    Result,
    check,
    families,
    formulas,
    identities,
    words,
)
from sizetransfer_verification.symbolic import command as command_module
from sizetransfer_verification.symbolic.algebra import numerator
from sizetransfer_verification.symbolic.command import symbolic
from sizetransfer_verification.symbolic.posterior import Atoms, FormalMoments, IsingSpins, Posterior
from sizetransfer_verification.symbolic.proof import decide

IDENTITIES = identities()
BY_NAME = {identity.name: identity for identity in IDENTITIES}
CONTROLS = [(identity, control) for identity in IDENTITIES for control in identity.negative_controls]

# What the verification must prove, by slug: the list of the design, complete.
REQUIRED = {
    "a general prior": ["tweedie", "response", "posterior-expectation", "third-cumulant", "target-score"],
    "vector sites, Proposition 2": ["tweedie-vector", "response-vector", "posterior-log-weight"],
    "finite support": ["tweedie-atoms", "response-atoms", "third-cumulant-atoms"],
    "Gaussian priors": ["gaussian-posterior", "tweedie-gaussian", "response-gaussian", "gaussian-any-dimension"],
    "Ising": ["tweedie-ising", "response-ising", "response-ising-zero-field"],
    "the reverse process": ["backward-kolmogorov", "dual-generator", "reverse-bridge", "reverse-gradient"],
    "Proposition 1": ["local-score"],
    "the mean mode": ["mean-mode-determinant", "mean-mode-inverse"],
    "couplings": ["affine-coupling-determinant", "affine-coupling-inverse", "coupling-depth"],
    "smoothers": ["additive-coupling-determinant", "additive-coupling-inverse"],
}


@pytest.fixture(scope="module", autouse=True)
def reported_time(record_testsuite_property: Callable[[str, object], None]) -> Iterator[None]:
    """Report the processor time of the whole file; the budget of the proofs is 60 seconds."""
    started = time.process_time()
    yield
    record_testsuite_property("symbolic_proofs_cpu_seconds", round(time.process_time() - started, 1))


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.name)
def test_identity_is_proven(identity: Identity):
    proof = identity.prove()
    assert proof.proven, f"{proof.failing}: {proof.remainder} is not zero"


@pytest.mark.parametrize(("identity", "control"), CONTROLS, ids=[f"{i.name}-{c.name}" for i, c in CONTROLS])
def test_negative_control_is_refuted(identity: Identity, control: NegativeControl):
    proof = identity.refute(control)
    assert proof.refuted
    assert not proof.proven
    assert proof.remainder not in (None, "", "0")


@pytest.mark.parametrize("what", REQUIRED)
def test_nothing_is_left_out(what: str):
    assert not set(REQUIRED[what]) - set(BY_NAME)


def test_identities_are_described():
    assert len(BY_NAME) == len(IDENTITIES)
    assert sum(map(len, families().values())) == len(IDENTITIES)
    for identity in IDENTITIES:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", identity.name)
        assert identity.title
        assert identity.source
        assert identity.assumptions
        names = [control.name for control in identity.negative_controls]
        assert names
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.name)
def test_formulas_are_balanced(identity: Identity):
    for formula in (identity.statement, *(control.statement for control in identity.negative_controls)):
        assert formula.strip()
        assert formula.count("{") == formula.count("}")
        assert formula.count(r"\Bigl") == formula.count(r"\Bigr")
        assert "$" not in formula


# --- provers that cannot fail, or cannot succeed ---------------------------------------------------------------------


def made_up(prover, *, control=lambda x: x + 1) -> Identity:
    """The identity f(x) = x with one wrong version."""
    wrong = NegativeControl("one-more", "x+1", control)
    return Identity("made-up", "t", "s", ("a",), "s", prover, lambda x: x, (wrong,))


X = sp.Symbol("x")
HEALTHY = made_up(lambda formula: iter([("x", formula(X) - X)]))
BROKEN = {
    "always says proven": made_up(lambda formula: iter([("nothing", sp.Integer(0))])),
    "ignores the formula": made_up(lambda formula: iter([("x", X - X)])),
    "asks nothing": made_up(lambda formula: iter([])),
    "never accepts": made_up(lambda formula: iter([("x", formula(X) - X + 1)])),
    "multiplies by zero": made_up(lambda formula: iter([("x", 0 * (formula(X) - X))])),
    "a control that is right": made_up(HEALTHY.prover, control=lambda x: (x**2 + x) / (x + 1)),
}


def test_a_healthy_prover_passes():
    assert check(HEALTHY).passed


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_prover_is_found_out(name: str):
    result = check(BROKEN[name])
    assert not result.passed
    assert command_module.problems(result)


def test_an_identity_without_controls_does_not_pass():
    alone = Identity("alone", "t", "s", ("a",), "s", HEALTHY.prover, HEALTHY.formula, ())
    assert alone.prove().proven
    assert not check(alone).passed


class WrongKernel(FormalMoments):
    """The Gaussian kernel differentiated with the wrong variance."""

    def rule(self, symbol: sp.Symbol, coordinate: int) -> sp.Expr:
        right = super().rule(symbol, coordinate)
        return right if symbol in self.x else right / 2


@pytest.mark.parametrize(
    ("prove", "formula"),
    [
        (formulas.prove_tweedie, formulas.tweedie),
        (formulas.prove_response, formulas.response),
        (formulas.prove_third_cumulant, formulas.third_cumulant),
    ],
    ids=["tweedie", "response", "third-cumulant"],
)
def test_a_wrong_rule_of_differentiation_is_noticed(prove, formula):
    assert decide(prove([FormalMoments("right", 2)])(formula)).proven
    assert decide(prove([WrongKernel("wrong", 2)])(formula)).refuted


# --- the rules that the symbols obey, against sympy's own exponentials -----------------------------------------------


def test_atoms_obey_the_derivatives_of_gaussian_weights():
    model = Atoms(2, 2)
    positions = [sp.symbols("a_00 a_01"), sp.symbols("a_10 a_11")]
    for k, i in itertools.product(range(2), repeat=2):
        exponent = -sum((x - a) ** 2 for x, a in zip(model.x, positions[k], strict=True)) / (2 * model.v)
        logarithmic = model.rule(sp.Symbol(f"E_{k}"), i) / sp.Symbol(f"E_{k}")
        assert sp.expand(sp.diff(exponent, model.x[i]) - logarithmic) == 0


def test_formal_moments_obey_the_derivatives_of_the_kernel():
    moments, v = FormalMoments("m", 2, variance=sp.Symbol("v")), sp.Symbol("v")
    y = sp.symbols("y_0 y_1")
    kernel = -sum((x - b) ** 2 for x, b in zip(moments.x, y, strict=True)) / (2 * v) - sp.log(v)  # d/2 = 1
    values = {moments.integral(*at): sp.prod(y[i] for i in at) for at in [(), (0,), (1,), (0, 0), (1, 1)]}
    along_x = moments.derivative(moments.integral(), 0).subs(values)
    assert sp.expand(along_x - sp.diff(kernel, moments.x[0])) == 0
    along_v = moments.derivative_in_variance(moments.integral()).subs(values)
    assert sp.expand(along_v - sp.diff(kernel, v)) == 0


def test_ising_weights_are_boltzmann_weights():
    """The exponents of the monomials and of the true weight differ by what does not depend on the spins."""
    model = IsingSpins("ring of 3", 3, [(0, 1), (1, 2), (2, 0)])
    beta, v = sp.Symbol("beta"), model.v
    exponents = {model.temperature: 2 * beta, **{f: 2 * x / v for f, x in zip(model.fields, model.x, strict=True)}}
    factor = -sum(x**2 + 2 * x for x in model.x) / (2 * v)
    differences = set()
    for spins in itertools.product((-1, 1), repeat=3):
        powers = model.weight(spins).as_powers_dict()
        symbolic_exponent = sum(power * exponents[base] for base, power in powers.items() if base != 1) + factor
        bonds = beta * sum(spins[i] * spins[j] for i, j in model.bonds)
        true = bonds - sum((x - s) ** 2 for x, s in zip(model.x, spins, strict=True)) / (2 * v)
        differences.add(sp.expand(symbolic_exponent - true))
    assert len(differences) == 1
    assert not differences.pop().free_symbols & set(model.x)
    for i in range(3):
        logarithmic = model.rule(model.factor, i) / model.factor
        assert sp.expand(sp.diff(factor, model.x[i]) - logarithmic) == 0


def test_a_posterior_needs_its_integrals():
    with pytest.raises(TypeError, match="integral"):
        Posterior("bare", 1)


# --- the decision itself ---------------------------------------------------------------------------------------------


def random_expression(draw: random.Random, depth: int) -> sp.Expr:
    """A rational expression whose denominators cannot vanish identically."""
    if depth == 0:
        return draw.choice([*sp.symbols("x y z"), sp.Rational(draw.randint(-3, 3), 2)])
    first, second = random_expression(draw, depth - 1), random_expression(draw, depth - 1)
    return draw.choice([first + second, first - second, first * second, first / (second**2 + 1), (first + 2) ** 2])


@pytest.mark.parametrize("seed", range(20))
def test_numerators_agree_with_sympy(seed: int):
    expression = random_expression(random.Random(seed), 4)
    rewritten = sp.cancel(sp.together(expression))
    assert numerator(expression - rewritten) == 0
    assert numerator(expression - rewritten - sp.Rational(1, 10**9) / (1 + X**2)) != 0


@pytest.mark.parametrize(
    "expression",
    [
        0.5 * X,
        sp.Float(0),
        sp.exp(X),
        sp.sqrt(X),
        X ** sp.Symbol("n"),
        1 / ((X + 1) ** 2 - X**2 - 2 * X - 1),
        sp.Integer(1) / 3 + sp.zoo,
        sp.pi,
        sp.Symbol("A", commutative=False),
    ],
    ids=["float", "zero-float", "exp", "root", "symbolic-power", "zero-denominator", "infinity", "pi", "matrix"],
)
def test_what_cannot_be_decided_is_refused(expression: sp.Expr):
    with pytest.raises(ConformanceError, match="cannot be decided exactly") as caught:
        decide(iter([("here", expression)]))
    assert "'here'" in str(caught.value)


def test_decisions_stop_at_the_first_failure():
    asked = []

    def equations():
        for value in (0, X, 0):
            asked.append(value)
            yield f"equation {len(asked)}", sp.sympify(value)

    proof = decide(equations())
    assert (proof.equations, proof.failing, proof.remainder) == (2, "equation 2", "x")
    assert len(asked) == 2


def test_long_remainders_are_shortened():
    remainder = decide(iter([("long", sp.expand((X + sp.Symbol("y") + 1) ** 4))])).remainder
    assert remainder.endswith("(15 terms)")


# --- noncommuting words ----------------------------------------------------------------------------------------------


def overlaps() -> list[tuple[words.Word, int]]:
    """Words on which two rules apply, and the place of the second."""
    pairs = itertools.product(words.RULES, repeat=2)
    return [
        (left + right[size:], len(left) - size)
        for left, right in pairs
        for size in range(1, min(len(left), len(right)))
        if left[-size:] == right[:size]
    ]


def spelled(word: words.Word) -> str:
    return " ".join(map(str, word))


@pytest.mark.parametrize(("word", "place"), overlaps(), ids=[spelled(word) for word, _ in overlaps()])
def test_rewriting_does_not_depend_on_the_order(word, place):
    """Bergman's diamond lemma: both ways to rewrite an overlap end alike."""

    def finished(start: int) -> dict:
        parts = words.rewrite_once(word, start=start).items()
        return words.normal_form(sp.Add(*(factor * sp.Mul(*part) for part, factor in parts)))

    assert finished(0) == finished(place)


def test_no_rule_holds_another():
    for left, right in itertools.permutations(words.RULES, 2):
        places = range(len(right) - len(left) + 1)
        assert not any(right[place : place + len(left)] == left for place in places)


def test_rules_shorten_or_put_c_for_v():
    for left, right in words.RULES.items():
        for word in right:
            exchanged = len(word) == len(left) and word.count(words.V) < left.count(words.V)
            assert len(word) < len(left) or exchanged


@pytest.mark.parametrize("rule", words.RULES, ids=map(spelled, words.RULES))
def test_rules_hold_for_matrices(rule):
    c, v = sp.Matrix([[3, 1], [1, 2]]), sp.Matrix([[5, -2], [-2, 4]])
    assert c * v != v * c
    values = {words.C: c, words.V: v, words.C_INVERSE: c.inv(), words.V_INVERSE: v.inv(), words.S: (c + v).inv()}

    def product(word: words.Word) -> sp.Matrix:
        return sp.Mul(sp.eye(2), *(values[letter] for letter in word)).doit().as_explicit()

    total = sp.zeros(2, 2)
    for word, factor in words.RULES[rule].items():
        total += factor * product(word)
    assert product(rule) == total


# --- the command -----------------------------------------------------------------------------------------------------


def test_command_prints_the_table():
    result = CliRunner().invoke(symbolic, ["tweedie", "reverse-bridge"])
    assert result.exit_code == 0, result.output
    assert re.search(r"tweedie +proven +3 +3/3 ", result.output)
    assert "2 of 2 identities proven; 6 of 6 negative controls refuted" in result.output


def test_command_prints_json():
    result = CliRunner().invoke(symbolic, ["--json", "response"])
    assert result.exit_code == 0, result.output
    data = json.loads(result.output)
    assert data["passed"] is True
    (found,) = data["identities"]
    assert found["name"] == "response"
    assert found["statement"] == BY_NAME["response"].statement
    assert [control["refuted"] for control in found["negative_controls"]] == [True] * 4
    assert found["seconds"] > 0


@pytest.mark.parametrize("name", BROKEN)
def test_command_fails_with_a_broken_prover(name: str, monkeypatch: pytest.MonkeyPatch):
    from sizetransfer_verification import symbolic as package

    monkeypatch.setattr(package, "identities", lambda: (BROKEN[name],))
    result = CliRunner().invoke(symbolic, [])
    assert result.exit_code == 1
    assert "made-up: " in result.output
    assert CliRunner().invoke(symbolic, ["--json"]).exit_code == 1


def test_command_names_the_nearest_identity():
    with pytest.raises(SpecError, match="no identity 'tweedy'") as caught:
        command_module.select(IDENTITIES, ["tweedy"])
    assert "tweedie" in caught.value.fix
    assert command_module.select(IDENTITIES, ["response", "response"]) == [BY_NAME["response"]]


def test_results_say_what_went_wrong():
    proven, refuted = HEALTHY.prove(), HEALTHY.refute(HEALTHY.negative_controls[0])
    assert command_module.problems(Result(HEALTHY, proven, {"one-more": refuted}, 0.0)) == []
    (line,) = command_module.problems(Result(HEALTHY, refuted, {"one-more": refuted}, 0.0))
    assert line == "made-up: does not hold at x: 1 is not zero"


WITHOUT_SYMPY = """
import sys
sys.modules["sympy"] = None
import sizetransfer_verification
import sizetransfer_verification.symbolic.command
from sizetransfer_verification.symbolic import identities
from sizetransfer.contracts.errors import PluginError
try:
    identities()
except PluginError as error:
    print(error)
"""


def test_without_sympy_only_the_proofs_are_missing():
    done = subprocess.run([sys.executable, "-c", WITHOUT_SYMPY], capture_output=True, text=True, check=True)
    assert "Proving identities needs the library 'sympy'" in done.stdout
    assert "pip install sympy" in done.stdout


def test_a_missing_sympy_is_a_plugin_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sympy", None)
    with pytest.raises(PluginError, match="sympy"):
        identities()


# --- the documentation -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def extension() -> ModuleType:
    path = Path(__file__).parents[2] / "docs" / "ext" / "identities.py"
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("identities_of_the_documentation", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_documentation_lists_every_identity(extension: ModuleType):
    text = extension.render(families())
    for identity in IDENTITIES:
        assert f"`{identity.name}`" in text
        assert f"$$\n{identity.statement}\n$$" in text
        assert identity.source in text
        for control in identity.negative_controls:
            assert f"- {control.name}: ${control.statement}$" in text


def test_page_has_the_marker_of_the_list(extension: ModuleType):
    page = Path(extension.__file__).parents[1] / f"{extension.PAGE}.md"
    assert page.read_text(encoding="utf-8").count(extension.MARKER) == 1
