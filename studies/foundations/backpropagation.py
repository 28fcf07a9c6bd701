r"""What backpropagation costs and what it returns.

Reverse mode gives the gradient of a scalar with respect to any number of parameters for a constant number of function
evaluations @baur1983complexity @griewank2008evaluating; for a multilayer perceptron the constant can be counted exactly. And
the gradient of a weight matrix is a sum of outer products, one for each example, so that its rank is at most the size of the
batch: the fact that low-rank optimisers and compressed communication rest on @zhao2024galore @vogels2019powersgd.
Operations are counted, never timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from lemmata.architectures import ARCHITECTURES, MLP, arguments
from lemmata.studies.claim import AtMost, Equals, Grid, claim, script
from lemmata.studies.data import gaussian

EVERY = {entry.name: entry for entry in ARCHITECTURES}
#: Networks whose operations, entrywise ones apart, are products of two factors, one of each way of sharing weights.
BILINEAR = ["mlp", "mlp-relu", "deep-linear", "cnn", "cnn-zeros", "signal-cnn", "rnn", "lstm", "gru", "encoder", "gcn"]
BATCH = 8


def operations(run: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions in ``run()``."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def gradient_cost(module: nn.Module, inputs: Any, loss: Callable[[Any], Tensor], mode: str) -> float:
    """Operations of a value with its gradient, over those of the value alone."""
    parameters, given = dict(module.named_parameters()), arguments(inputs)
    size = sum(p.numel() for p in parameters.values()) + sum(x.numel() for x in given if x.requires_grad)
    constant = tuple(x.detach() for x in given)

    def one_direction() -> None:
        tangents = {name: torch.ones_like(value) for name, value in parameters.items()}
        jvp(lambda named: loss(functional_call(module, named, constant)), (parameters,), (tangents,))

    with torch.no_grad():
        value = operations(lambda: loss(module(*given)))
    if mode == "forward":  # one product for each entry, and all products cost the same
        return size * operations(one_direction) / value
    network = module if mode == "reverse" else lambda *x: checkpoint(module, *x, use_reentrant=False)
    return operations(lambda: loss(network(*given)).backward()) / value


@claim(
    source=("baur1983complexity", "griewank2008evaluating"),
    predicts=Equals("3 - (1 - inputs)/depth", within=1e-12, of="each"),
    quick=Grid(depth=[2, 3, 5, 8], inputs=[0, 1], seeds=1),
    full=Grid(depth=list(range(2, 33)), inputs=[0, 1], seeds=1),
    controls={
        "reverse mode: forward mode": dict(mode="forward"),
        "stored activations: checkpointing": dict(mode="checkpointed"),
    },
)
def cheap_gradient_principle(depth: int, inputs: int, seed: int, mode: str = "reverse") -> float:
    r"""A gradient costs three forward passes, less the first layer's input.

    Let $f$ be a multilayer perceptron with $L$ weight matrices of equal size and no biases. Count the operations of the
    matrix products. The forward pass has one product for each layer; the backward pass has two, one for the weights and one
    for the layer's input, and the first layer needs the latter only if the gradient with respect to the inputs is asked
    for. Hence
    $ frac("cost"(f, nabla f), "cost"(f)) = 3 - frac(1, L) quad "or, with the inputs' gradient," quad 3, $
    whatever the width: $2.8$ for $L = 5$. It is an instance of the cheap gradient principle, by which the ratio is at most
    five for every function composed of elementary operations @baur1983complexity @griewank2008evaluating.

    Forward mode needs one directional derivative for each parameter, and its ratio grows with their number. Checkpointing
    runs the forward pass again instead of storing it, and the ratio approaches four.
    """
    draws = torch.Generator().manual_seed(seed)
    module = MLP([16] * (depth + 1), bias=False, generator=draws, device=torch.get_default_device())
    x = gaussian(draws, BATCH, 16).requires_grad_(bool(inputs))
    return gradient_cost(module, x, lambda output: output.square().mean(), mode)


@claim(
    source=("baur1983complexity", "griewank2008evaluating"),
    predicts=AtMost(3),
    quick=Grid(architecture=BILINEAR, seeds=1),
    full=Grid(architecture=BILINEAR, seeds=3),
    controls={"reverse mode: forward mode": dict(mode="forward")},
)
def cheap_gradient_principle_bound(architecture: str, seed: int, mode: str = "reverse") -> float:
    r"""In any architecture of products, a gradient costs at most three forward passes.

    Let $f$ be a network whose operations, apart from entrywise ones, are bilinear in weights and activations: matrix
    products and convolutions. The derivative of a bilinear map is two maps of the same cost, so that, counting these
    operations, $"cost"(f, nabla f) <= 3 thin "cost"(f)$ @baur1983complexity @griewank2008evaluating. Forward mode, the
    control, costs at least as many passes as there are parameters.
    """
    entry, device, dtype = EVERY[architecture], torch.get_default_device(), torch.get_default_dtype()
    inputs, target = entry.sample(seed, dtype, device)
    return gradient_cost(entry.build().to(device, dtype), inputs, lambda output: entry.loss(output, target), mode)


def draw_singular_values(ax: Any, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """The singular values of the gradient fall off a cliff after the batch size.

    Singular values of one weight gradient relative to the largest, on a logarithmic axis, against their number: one line
    for each batch size, each dropping by more than ten orders of magnitude after as many values as there are examples.
    """
    columns: dict[str, Sequence[float]] = {"number": list(range(1, 31))}
    for row in rows:
        if row.arm == "" and row.k == 0 and row.point["batch"] in (1, 2, 4, 8, 40):
            label = f"batch {row.point['batch']}"
            columns[label] = row.values["singular_values"]
            ax.semilogy(columns["number"], columns[label], marker=".", label=label)
    ax.set(xlabel="number of the singular value", ylabel="singular value ÷ the largest", ylim=(1e-18, 3))
    ax.legend()
    return columns


@claim(
    source=("zhao2024galore", "vogels2019powersgd"),
    predicts=Equals("min(batch, 30)", within=0, of="each"),
    quick=Grid(batch=[*range(1, 9), 40], seeds=3),
    full=Grid(batch=list(range(1, 41)), seeds=20),
    controls={
        "the gradient of the data term alone: weight decay": dict(decay=0.1),
        "examples in general position: each one twice": dict(distinct=False),
    },
    figures=(draw_singular_values,),
)
def minibatch_gradient_rank(batch: int, seed: int, decay: float = 0.0, distinct: bool = True) -> dict[str, Any]:
    r"""The gradient of a weight matrix has the rank of the batch.

    Let $z_b = W x_b$ with $W in RR^(m times n)$ be a layer of a network and $L$ a mean over a batch of $B$ examples. Then
    $ nabla_W L = sum_(b=1)^B delta_b x_b^top, quad delta_b = nabla_(z_b) L, $
    so its rank is at most $min(B, m, n)$, with equality for examples in general position. Low-rank optimisers
    @zhao2024galore and gradient compression @vogels2019powersgd start from this. Here $m = 40$, $n = 30$; the rank counts
    singular values above $10^(-10)$ of the largest.

    Weight decay adds a multiple of $W$, which has full rank; a batch of $B$ examples of which half are copies has rank
    $ceil(B\/2)$.
    """
    draws = torch.Generator().manual_seed(seed)
    net = MLP([30, 40, 10], generator=draws, device=torch.get_default_device())
    x, target = gaussian(draws, batch, 30), gaussian(draws, batch, 10)
    if not distinct:
        source = torch.arange(batch) // 2
        x, target = x[source], target[source]
    weight = net.get_parameter("layers.0.weight")
    loss = (net(x) - target).square().mean() + decay / 2 * weight.square().sum()
    singular_values = torch.linalg.svdvals(torch.autograd.grad(loss, weight)[0])
    relative = singular_values / singular_values[0]
    return {"value": (relative > 1e-10).sum(), "singular_values": relative}


if __name__ == "__main__":
    script(__file__)
