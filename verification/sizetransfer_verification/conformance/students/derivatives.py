"""Gradients, precision, and the transformations of torch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from sizetransfer.contracts.oracle import Context
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import student_check
from sizetransfer_verification.conformance.evidence import Evidence
from sizetransfer_verification.conformance.students.setting import (
    PARAMETERS,
    answer,
    differentiable,
    direction,
    require,
    spread,
)
from sizetransfer_verification.conformance.subjects import StudentSubject

STEP = 1e-8
"""Step of a finite difference, in units of the field: what float32 anywhere within a student would swallow.

It is that small because the derivative of a student may jump (ReLU), and a difference should meet no jump."""


@student_check(
    "The gradient of the score reaches every parameter.",
    cause="a layer that is built and never called, detach() or no_grad() around a part, an output that saturates",
    needs=(PARAMETERS,),
    space=CaseSpace(examples=5, batches=(3,), largest=130),
)
def gradients_reach_every_parameter(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.fresh(case), subject.inputs(case)
    score = differentiable(student, x, spread(sigma), context, evidence)
    score.square().sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            found = parameter.grad
            reached = found is not None and bool(found.isfinite().all()) and bool((found != 0).any())
            measured = "none" if found is None else "zero, or not finite"
            evidence.holds(reached, f"gradient of {name}", measured=measured, allowed="finite, and not zero everywhere")


@student_check(
    "The score in float32 is that in float64, within rounding.",
    cause="a difference of large numbers, half precision within, an epsilon of one dtype that is zero in the other",
    space=CaseSpace(examples=10, batches=(2,), largest=130),
)
def float32_agrees_with_float64(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    double, single = (replace(case, dtype=name) for name in ("float64", "float32"))
    key = "asked in one precision", case.member
    if key not in subject.kept:
        subject.kept[key] = subject.fresh(double), subject.fresh(single)
    exact, rounded = subject.kept[key]
    expected = answer(exact, *subject.inputs(double))
    got = answer(rounded, *subject.inputs(single))
    evidence.close(got.double(), expected, "score in float32", "precision")


@student_check(
    "In float64 every operation is, and derivatives are those of the score: differences over tiny steps agree.",
    cause="a cast to float32, a constant table of float32, detach() of the field, a wrong backward of its own",
    space=CaseSpace(examples=5, batches=(2,), largest=130),
)
def double_precision_throughout(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    x.requires_grad_()
    score = differentiable(student, x, sigma, context, evidence)
    step = STEP * float(x.detach().square().mean().sqrt())
    for index in range(3):
        along, weights = direction(x, case, "along", index), direction(score, case, "weights", index)
        (slope,) = torch.autograd.grad((score * weights).sum(), x, retain_graph=True, materialize_grads=True)
        forwards = answer(student, x.detach() + step * along, sigma, context)
        backwards = answer(student, x.detach() - step * along, sigma, context)
        difference = ((forwards - backwards) * weights).sum() / (2 * step)
        scale = float((slope * along).square().sum().sqrt())
        what = f"slope of the score over a step of {step:.2g}"
        evidence.close(difference, (slope * along).sum(), what, "precision", scale=scale)


@student_check(
    "The transformations of torch.func work (functional_call, vmap over rows, grad), unless declared not to.",
    cause="branches on the value of a tensor, .item(), numpy, or writing into a tensor that was made without the rows",
    space=CaseSpace(examples=5, batches=(3,), largest=130),
)
def functional_transformations(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    require("func" not in student.unsupported, "The student declares that it does without torch.func.")
    weights = {**dict(student.named_parameters()), **dict(student.named_buffers())}
    weights = {name: value.detach() for name, value in weights.items()}

    def one(row: Tensor, level: Tensor, condition: Tensor | None) -> Tensor:
        alone = Context(context.domain, None if condition is None else condition[None].clone())
        found: Tensor = functional_call(student, weights, (row[None].clone(), level[None].clone(), alone))
        return found[0]

    conditions = context.condition
    mapped = vmap(one, in_dims=(0, 0, None if conditions is None else 0))
    expected = answer(student, x, sigma, context)
    evidence.close(mapped(x, sigma, conditions).detach(), expected, "score by vmap over rows", "value")
    given = x.clone().requires_grad_()
    total = differentiable(student, given, sigma, context, evidence).square().sum()
    (slope,) = torch.autograd.grad(total, given, materialize_grads=True)
    by_function = grad(lambda field: mapped(field, sigma, conditions).square().sum())(x)
    evidence.close(by_function.detach(), slope, "gradient by torch.func", "derivative")


@student_check(
    "Second derivatives exist and are those of the first, unless declared not to.",
    cause="a backward of one's own without a derivative (once_differentiable), or a kernel that has none",
    space=CaseSpace(examples=5, batches=(1,), largest=130),
)
def second_derivatives(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    require("second derivatives" not in student.unsupported, "The student declares that it has no second derivatives.")
    weights, across, along = (direction(x, case, name) for name in ("weights", "across", "along"))

    def slope(field: Tensor) -> Tensor:
        score = differentiable(student, field, sigma, context, evidence)
        total = (score * weights).sum()
        (row,) = torch.autograd.grad(total, field, create_graph=True, materialize_grads=True)
        return (row * across).sum()

    x.requires_grad_()
    first = slope(x)
    scale = float(first.detach().abs())
    if first.requires_grad:
        (curvature,) = torch.autograd.grad(first, x, materialize_grads=True)
    else:
        # A score that is linear in the field.
        curvature = torch.zeros_like(x)
    step = STEP * float(x.detach().square().mean().sqrt())
    ends = [slope((x.detach() + sign * step * along).requires_grad_()).detach() for sign in (1, -1)]
    scale = max(scale, float((curvature * along).square().sum().sqrt()))
    difference = (ends[0] - ends[1]) / (2 * step)
    evidence.close(difference, (curvature * along).sum(), "second derivative of the score", "precision", scale=scale)
