r"""Fully connected networks: the multilayer perceptron and the deep linear network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._entry import Architecture, Symmetry, mean_square, normal, regression, seeded
from ._pieces import Activation, ArchitectureError, Law, checked_sizes, linear, resolve_activation, resolve_law


class MLP(nn.Module):
    r"""A multilayer perceptron with $L$ layers and an entrywise activation $φ$ between them.

    $$z_1 = W_1 x + b_1, \qquad z_l = W_l φ(z_{l-1}) + b_l, \qquad f(x) = z_L.$$

    Shapes: $x$: (..., $n_0$) → $f(x)$: (..., $n_L$); $W_l$: ($n_l$, $n_{l-1}$), $b_l$: ($n_l$,); `widths` is
    $[n_0, …, n_L]$. Parameters are named `layers.0.weight`, `layers.0.bias`, … in the order of the equation.

    Initialisation, independent entries of mean zero, $n = n_{l-1}$ in and $m = n_l$ out:

    ============== ================================================ ========= ===============================
    `init`         Var $W_{ij}$                                     Var $b_i$ source
    ============== ================================================ ========= ===============================
    `"default"`    1/(3n), uniform on ±1/√n                         1/(3n)    torch.nn.Linear [lecun1998efficient]
    `"lecun"`      1/n, Gaussian                                    0         [lecun1998efficient]
    `"he"`         2/n, Gaussian                                    0         [he2015delving]
    `"glorot"`     2/(n+m), Gaussian                                0         [glorot2010understanding]
    `"orthogonal"` 1/max(n, m): $W W^⊤ = I$ or $W^⊤ W = I$, uniform 0         [saxe2014exact]
    ============== ================================================ ========= ===============================

    No law is scaled by a gain for $φ$; pass a `Law` for another variance.

    Args:
        widths: $n_0, …, n_L$, at least two positive integers.
        activation: a name (tanh, erf, sigmoid, softplus, gelu in its erf form, silu, sin, relu) or your own function
            from a tensor to a tensor of the same shape. All named ones are smooth except relu.
        init: a name of the table or a `Law`.
        bias: False leaves every $b_l$ out.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None. Drawn in float64 on the CPU, then
            rounded and moved: a seed means the same network on every device.

    Raises:
        ArchitectureError: an argument above, or the input's last dimension, is not what it must be.

    Cost: one pass is $2 \sum_l n_l n_{l-1}$ operations an example; memory $\sum_l n_l$ an example for a gradient.
    Left out: dropout, normalisation, skip connections, a last activation.
    Source: rumelhart1986learning.

    >>> net = MLP([2, 2, 1], activation="relu", bias=False)
    >>> _ = net.load_state_dict({"layers.0.weight": torch.tensor([[1.0, -1.0], [-1.0, 1.0]]),
    ...                          "layers.1.weight": torch.tensor([[1.0, 1.0]])})
    >>> net(torch.tensor([[3.0, 1.0], [1.0, 3.0]])).tolist()          # |x_1 − x_2|
    [[2.0], [2.0]]
    >>> sum(p.numel() for p in MLP([64, 200, 10]).parameters()) == 64 * 200 + 200 + 200 * 10 + 10
    True

    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        bias: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.widths = checked_sizes("widths", widths, least=2)
        self.activation = resolve_activation(activation)
        law = resolve_law(init)
        self.layers = nn.ModuleList(
            linear(n, m, bias, law, dtype, device, generator)
            for n, m in zip(self.widths[:-1], self.widths[1:], strict=True)
        )

    def preactivations(self, x: Tensor) -> list[Tensor]:
        """Return $[z_1, …, z_L]$, each of shape (..., $n_l$); the last is the output.

        >>> [tuple(z.shape) for z in MLP([3, 4, 5, 2]).preactivations(torch.zeros(7, 3))]
        [(7, 4), (7, 5), (7, 2)]
        """
        _check_last(x, self.widths[0])
        z = [self.layers[0](x)]  # (... n1)
        for layer in self.layers[1:]:
            z.append(layer(self.activation(z[-1])))
        return z

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (..., $n_0$) → (..., $n_L$)."""
        return self.preactivations(x)[-1]

    def extra_repr(self) -> str:
        """Name the activation in the printed network."""
        return f"activation={getattr(self.activation, '__name__', self.activation)}"


class DeepLinear(nn.Module):
    r"""A deep linear network: an MLP without activation and without bias.

    $$f(x) = W_L W_{L-1} ⋯ W_1 x.$$

    A linear function of $x$, but not of its parameters: the loss has saddles, conserved quantities
    $W_{l+1}^⊤ W_{l+1} - W_l W_l^⊤$ under gradient flow, and plateaus, all known in closed form.

    Shapes: $x$: (..., $n_0$) → $f(x)$: (..., $n_L$); $W_l$: ($n_l$, $n_{l-1}$), named `layers.0.weight`, ….
    Initialisation: the table of `MLP`, by default `"lecun"`, Var $W_{ij} = 1/n_{l-1}$, which keeps
    $E\|f(x)\|^2 / n_L = \|x\|^2 / n_0$ at any depth.

    Args:
        widths: $n_0, …, n_L$, at least two positive integers.
        init: `"lecun"`, `"he"`, `"glorot"`, `"orthogonal"`, `"default"` or a `Law`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the input's last dimension, is not what it must be.

    Cost: as `MLP`; `product()` is $2 n_0 \sum_l n_l n_{l-1}$ operations.
    Left out: biases; balanced initialisation (`load_state_dict` your own factors).
    Source: saxe2014exact.

    >>> net = DeepLinear([2, 3, 2], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    >>> torch.allclose(net(x), net.product() @ x, rtol=0, atol=1e-14)
    True

    """

    def __init__(
        self,
        widths: Sequence[int],
        init: str | Law = "lecun",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.widths = checked_sizes("widths", widths, least=2)
        law = resolve_law(init)
        self.layers = nn.ModuleList(
            linear(n, m, False, law, dtype, device, generator)
            for n, m in zip(self.widths[:-1], self.widths[1:], strict=True)
        )

    def product(self) -> Tensor:
        """Return the end-to-end matrix $W_L ⋯ W_1$, of shape ($n_L$, $n_0$).

        >>> tuple(DeepLinear([4, 3, 2]).product().shape)
        (2, 4)
        """
        weights: list[Tensor] = list(self.parameters())  # W_1: (n1 n0), …, W_L
        end_to_end = weights[0]
        for weight in weights[1:]:
            end_to_end = weight @ end_to_end  # (nl n0)
        return end_to_end

    def forward(self, x: Tensor) -> Tensor:
        """Return $f(x)$: (..., $n_0$) → (..., $n_L$)."""
        _check_last(x, self.widths[0])
        for layer in self.layers:
            x = layer(x)
        return x


def _check_last(x: Tensor, width: int) -> None:
    if x.dim() == 0 or x.shape[-1] != width:
        raise ArchitectureError(
            f"the input has shape {tuple(x.shape)}, but widths[0]={width} asks for (..., {width}); "
            "images must be flattened first: x.flatten(1)."
        )


def _relu() -> MLP:
    return MLP([3, 5, 4, 2], activation="relu", dtype=torch.float64, generator=seeded(2))


def _away_from_kinks(seed: int, dtype: torch.dtype, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Keep inputs at which every hidden |z| > 0.05: a ReLU network is then smooth in a ball around its parameters."""
    g = seeded(seed)
    candidates, target = normal(g, 400, 3), normal(g, 5, 2)
    with torch.no_grad():
        hidden = torch.cat(_relu().preactivations(candidates)[:-1], dim=-1)  # (400 9)
    inputs = candidates[hidden.abs().amin(-1) > 0.05][:5]
    return inputs.to(device, dtype), target.to(device, dtype)


#: The two signs: every linear map is odd.
_SIGNS = Symmetry(elements=(1, -1), act_on_inputs=lambda g, x: g * x, act_on_outputs=lambda g, y: g * y)

ENTRIES = (
    Architecture(
        name="mlp",
        family="MLP",
        build=lambda: MLP([3, 5, 4, 2], activation="tanh", dtype=torch.float64, generator=seeded(1)),
        sample=regression(3, 2),
        loss=mean_square,
        symmetry=None,
        source="rumelhart1986learning",
    ),
    Architecture(
        name="mlp-relu",
        family="MLP",
        build=_relu,
        sample=_away_from_kinks,
        loss=mean_square,
        symmetry=None,
        source="rumelhart1986learning",
        smooth=False,
    ),
    Architecture(
        name="deep-linear",
        family="DeepLinear",
        build=lambda: DeepLinear([3, 4, 4, 2], dtype=torch.float64, generator=seeded(3)),
        sample=regression(3, 2),
        loss=mean_square,
        symmetry=_SIGNS,
        source="saxe2014exact",
    ),
)
