"""The Schwarz test: do all the ways to differentiate a function twice give the derivative that it has?

By Schwarz's theorem the Hessian of a smooth function is symmetric and does not depend on the order of differentiation,
so reverse-over-reverse, forward-over-reverse, reverse-over-forward and forward-over-forward must agree. Agreement alone
would be autograd bearing witness for itself, so the truth here comes from another channel: differences of values (for
the gradient) and of gradients (for the Hessian), taken in float64 whatever the dtype under test.

Every check returns relative errors by name, so that a failure says which mode is wrong and by how much. The limits are

* `ROUNDING` = 32 · eps of the dtype, against another autograd mode or the float64 truth: these nets make some hundreds
  of roundings a derivative, which add up like their square root (the worst seen in 50 batches of each is 4 eps);
* `DIFFERENCE` = 1e-10 in float64 against central differences extrapolated to sixth order: truncation is
  STEP⁶ times the seventh derivative and rounding 2 eps/STEP ≈ 4e-13, amplified by how small ‖Hv‖ may be. In float32 the
  truth is still taken in float64, so that the limit is rounding alone.

This is a helper, not a test: it is loaded by path from here and from tests/gpu.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.utils._pytree import tree_leaves, tree_map

from lemmata.architectures import Architecture, arguments

Scalar = Callable[[Tensor], Tensor]  # θ: (P,) → ()
Loss = Callable[[Any, Any], Tensor]

ROUNDING = 32.0
DIFFERENCE = 1e-10
STEP = 1e-3

with warnings.catch_warnings():  # the first forward-mode derivative of a process imports modules that torch deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))


def limit(dtype: torch.dtype, against: str = "autograd") -> float:
    """Return the relative error that a check may show; `against` is "autograd" or "difference"."""
    rounding = ROUNDING * torch.finfo(dtype).eps
    return max(rounding, DIFFERENCE) if against == "difference" else rounding


@dataclass(frozen=True)
class Finding:
    """One check that failed: its name, the relative error (inf where an exception was raised) and the exception."""

    check: str
    error: float
    limit: float
    raised: str = ""

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.check}: " + (self.raised or f"relative error {self.error:.2g} > {self.limit:.2g}")


def judge(check: str, bound: float, measure: Callable[[], float]) -> list[Finding]:
    """Run one measurement; return nothing if it is within `bound`, else the finding. NaN and exceptions are findings."""
    try:
        error = measure()
    except Exception as raised:
        return [Finding(check, float("inf"), bound, f"{type(raised).__name__}: {str(raised).strip()[:300]}")]
    return [] if error <= bound else [Finding(check, error, bound)]


def relative(value: Tensor, truth: Tensor) -> float:
    """Return ‖value − truth‖ / ‖truth‖, computed in float64."""
    value, truth = value.double(), truth.double()
    if value.shape != truth.shape:
        raise AssertionError(f"shapes differ: {tuple(value.shape)} and {tuple(truth.shape)}")
    return ((value - truth).norm() / truth.norm().clamp_min(1e-300)).item()


# The modes: each takes a scalar function and a point, and multiplies its Hessian by a direction.
def reverse_over_reverse(f: Scalar, at: Tensor, v: Tensor) -> Tensor:
    """Return Hv as vjp(∇f)."""
    return vjp(grad(f), at)[1](v)[0]


def forward_over_reverse(f: Scalar, at: Tensor, v: Tensor) -> Tensor:
    """Return Hv as jvp(∇f)."""
    return jvp(grad(f), (at,), (v,))[1]


def reverse_over_forward(f: Scalar, at: Tensor, v: Tensor) -> Tensor:
    """Return Hv as ∇(jvp f)."""
    return grad(lambda point: jvp(f, (point,), (v,))[1])(at)


def forward_over_forward(f: Scalar, at: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return ⟨u, Hv⟩ as jvp(jvp f)."""
    return jvp(lambda point: jvp(f, (point,), (v,))[1], (at,), (u,))[1]


MODES = {"RR": reverse_over_reverse, "FR": forward_over_reverse, "RF": reverse_over_forward}


def difference(g: Callable[[Tensor], Tensor], at: Tensor, v: Tensor) -> Tensor:
    """Return the derivative of `g` along `v` by central differences D, extrapolated: (15 D(s) − 6 D(2s) + D(3s)) / 10."""

    def central(step: float) -> Tensor:
        return (g(at + step * v) - g(at - step * v)) / (2 * step)

    return (15 * central(STEP) - 6 * central(2 * STEP) + central(3 * STEP)) / 10


def gradient(f: Scalar, at: Tensor) -> Tensor:
    """Return ∇f by plain reverse mode, outside torch.func: what the truth's differences are taken of."""
    at = at.detach().requires_grad_()
    return torch.autograd.grad(f(at), at)[0]


def directions(at: Tensor, count: int) -> Tensor:
    """Return `count` unit directions, (count, P), from a fixed seed: the same on every device and in every dtype."""
    v = torch.randn(count, at.numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (v / v.norm(dim=1, keepdim=True)).to(at)


def check_derivatives(f: Scalar, at: Tensor, truth: Scalar | None = None) -> list[Finding]:
    """Compare every first and second derivative of `f` at `at` with differences, and with one another.

    `truth` is the same function in float64 (`f` itself if it takes a float64 argument).
    """
    truth, exact = truth or f, at.double()
    v, u = directions(at, 2)
    near, far = limit(at.dtype), limit(at.dtype, "difference")
    slope = difference(truth, exact, v.double())
    curvature = difference(lambda point: gradient(truth, point), exact, v.double())
    bend = u.double() @ curvature
    # Inner products may be small by chance: their error is measured against the norms of their factors.
    slope_scale = max(abs(slope.item()), gradient(truth, exact).norm().item())

    found = judge("jvp", far, lambda: abs(jvp(f, (at,), (v,))[1].item() - slope.item()) / slope_scale)
    found += judge("grad", far, lambda: abs((grad(f)(at) @ v).item() - slope.item()) / slope_scale)
    products: dict[str, Tensor] = {}
    for name, mode in MODES.items():

        def measure(name: str = name, mode: Callable[..., Tensor] = mode) -> float:
            products[name] = mode(f, at, v)
            return relative(products[name], curvature)

        found += judge(name, far, measure)
    found += judge(
        "JJ", far, lambda: abs(forward_over_forward(f, at, u, v).item() - bend.item()) / curvature.norm().item()
    )
    found += _agreement(products, near)
    for name, mode in MODES.items():
        if name in products:
            found += judge(f"{name} symmetric", near, lambda mode=mode: _asymmetry(mode, f, at, u, v))
    return found


def _agreement(products: dict[str, Tensor], near: float) -> list[Finding]:
    names = list(products)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return [
        finding
        for a, b in pairs
        for finding in judge(f"{a} = {b}", near, lambda a=a, b=b: relative(products[a], products[b]))
    ]


def _asymmetry(mode: Callable[..., Tensor], f: Scalar, at: Tensor, u: Tensor, v: Tensor) -> float:
    """Return |⟨u, Hv⟩ − ⟨v, Hu⟩| / ‖Hv‖."""
    hv, hu = mode(f, at, v), mode(f, at, u)
    return (abs(u.double() @ hv.double() - v.double() @ hu.double()) / hv.double().norm()).item()


@contextlib.contextmanager
def no_slow_vmap() -> Iterator[None]:
    """Make vmap raise where it would loop, and put the switch back as it was."""
    before = torch._C._functorch._is_vmap_fallback_enabled()
    torch._C._functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        torch._C._functorch._set_vmap_fallback_enabled(before)


def check_vmap(name: str, g: Callable[[Tensor], Tensor], batch: Tensor) -> list[Finding]:
    """Compare `vmap(g)(batch)`, without the slow fallback, with the loop over the batch."""

    def measure() -> float:
        with no_slow_vmap():
            together = vmap(g)(batch)
        return relative(together, torch.stack([g(one) for one in batch]))

    return judge(f"vmap {name}", limit(batch.dtype), measure)


def check_vmap_modes(f: Scalar, at: Tensor) -> list[Finding]:
    """Map `f`, its gradient and each Hessian product over four points, and each product over four directions."""
    v = directions(at, 4)
    points = at + 0.01 * v
    found = check_vmap("f over parameters", f, points) + check_vmap("grad over parameters", grad(f), points)
    for name, mode in MODES.items():
        found += check_vmap(f"{name} over parameters", lambda p, mode=mode: mode(f, p, v[0]), points)
        found += check_vmap(f"{name} over probes", lambda w, mode=mode: mode(f, at, w), v)
    return found


def flatten(module: nn.Module) -> Tensor:
    """Return the parameters as one vector, (P,)."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def unflatten(module: nn.Module, flat: Tensor) -> dict[str, Tensor]:
    """Return the vector as parameters by name."""
    named = dict(module.named_parameters())
    parts = flat.split([p.numel() for p in named.values()])
    return {name: part.view(p.shape) for (name, p), part in zip(named.items(), parts, strict=True)}


def objective(module: nn.Module, loss: Loss, inputs: Any, target: Any) -> Scalar:
    """Return θ ↦ loss(module with parameters θ (inputs), target)."""

    def f(flat: Tensor) -> Tensor:
        return loss(functional_call(module, unflatten(module, flat), arguments(inputs)), target)

    return f


def state_of(module: nn.Module) -> dict[str, bytes]:
    """Return every parameter, gradient and buffer as bytes, and the training flags: what must not change."""
    state = {f"value {k}": t.detach().cpu().numpy().tobytes() for k, t in module.state_dict(keep_vars=True).items()}
    state |= {f"grad {k}": repr(p.grad).encode() for k, p in module.named_parameters()}
    return state | {f"training {k}": repr(m.training).encode() for k, m in module.named_modules()}


def examples(batch: Any) -> list[Any]:
    """Return a batch, a tensor or nested tuples of tensors, as a list of its examples without the first axis."""
    return [tree_map(lambda t, i=i: t[i], batch) for i in range(len(tree_leaves(batch)[0]))]


def single(example: Any) -> Any:
    """Return an example as a batch of one."""
    return tree_map(lambda t: t.unsqueeze(0), example)


def joined(outputs: Any) -> Tensor:
    """Return a batch of outputs, a tensor or nested tuples, as one matrix with a row for each example."""
    return torch.cat([t.flatten(1) if t.dim() > 1 else t.unsqueeze(1) for t in tree_leaves(outputs)], dim=1)


def doubled(item: Any) -> Any:
    """Return floating-point tensors in float64, others as they are."""
    return tree_map(lambda t: t.double() if t.is_floating_point() else t, item)


def check_data(module: nn.Module, loss: Loss, inputs: Any, target: Any):
    """Compare a batch with its examples one by one, and vmap over examples of loss, gradient and Hessian products."""
    at, dtype = flatten(module), flatten(module).dtype
    v = directions(at, 1)[0]

    def batch_of_one() -> float:
        with torch.no_grad():
            alone = [joined(module(*arguments(single(x)))) for x in examples(inputs)]
            return relative(torch.cat(alone), joined(module(*arguments(inputs))))

    def over(g: Callable[[Scalar], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: g(objective(module, loss, single(x), single(t)))

    def mapped(g: Callable[[Scalar], Tensor]) -> float:
        with no_slow_vmap():
            together = vmap(over(g))(inputs, target)
        pairs = zip(examples(inputs), examples(target), strict=True)
        return relative(together, torch.stack([over(g)(x, t) for x, t in pairs]))

    found = judge("batch of one", limit(dtype), batch_of_one)
    found += judge("vmap f over data", limit(dtype), lambda: mapped(lambda f: f(at)))
    found += judge("vmap grad over data", limit(dtype), lambda: mapped(lambda f: grad(f)(at)))
    for name, mode in MODES.items():
        found += judge(f"vmap {name} over data", limit(dtype), lambda mode=mode: mapped(lambda f: mode(f, at, v)))
    return found


def check_module(module: nn.Module, loss: Loss, inputs: Any, target: Any):
    """Run every check on one module and batch; return what failed. An empty list is the contract."""
    before = state_of(module)
    exact = copy.deepcopy(module).double()
    exact_inputs, exact_target = doubled(inputs), doubled(target)
    f, at = objective(module, loss, inputs, target), flatten(module)
    found = check_derivatives(f, at, objective(exact, loss, exact_inputs, exact_target))
    found += check_vmap_modes(f, at) + check_data(module, loss, inputs, target)
    f(at + 1)  # other parameters, through functional_call
    after = state_of(module)
    changed = [name for name in before if before[name] != after[name]]
    return found + ([Finding("state", float("inf"), 0.0, f"changed: {', '.join(changed)}")] if changed else [])


def expect(entry: Architecture, findings: list[Finding]) -> None:
    """Fail unless the findings are exactly the entry's exemptions, each with the error it states; then xfail, strictly."""
    told = "\n".join(map(str, findings))
    stated = {check: exemption for exemption in entry.exempt for check in exemption.checks}
    assert {finding.check for finding in findings} == set(stated), told or f"{entry.name} needs no exemption now"
    for finding in findings:
        assert stated[finding.check].error in str(finding), told
    if stated:
        pytest.xfail("; ".join(exemption.reason for exemption in entry.exempt))
