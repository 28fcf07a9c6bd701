r"""Variational autoencoders: the neural one, and the linear one whose evidence is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._entry import Architecture, normal, sampled, seeded
from ._pieces import (
    Activation,
    ArchitectureError,
    Law,
    Maker,
    checked_name,
    checked_size,
    checked_sizes,
    resolve_law,
    softplus,
)
from .mlp import MLP

DECODERS = ("gaussian", "bernoulli")

#: What a Gaussian VAE returns: reconstruction, mean and log variance of the code, and log noise variance if learned.
Output = tuple[Tensor, ...]


class VAE(nn.Module):
    r"""A variational autoencoder: a Gaussian code, and a decoder with Gaussian or Bernoulli observations.

    $$q(z|x) = N(m(x), \mathrm{diag}\, e^{v(x)}), \quad (m, v) = \mathrm{MLP}_{enc}(x), \qquad
    z = m(x) + e^{v(x)/2} ⊙ ε, \quad ε ∼ N(0, I), \qquad r = \mathrm{MLP}_{dec}(z),$$
    $$p(z) = N(0, I), \qquad p(x|z) = N(r, I) \ \text{(gaussian)} \quad \text{or} \quad
    ∏_i σ(r_i)^{x_i} (1-σ(r_i))^{1-x_i} \ \text{(bernoulli)}.$$

    The noise $ε$ is an input: the module is a function. `elbo` turns its output into the bound on $\log p(x)$.

    Shapes: $x$: (..., d), $ε$: (..., k) → $(r, m, v)$: (..., d), (..., k), (..., k); `widths` is $[d, n_1, …, n_L, k]$.
    The encoder is `MLP([d, n_1, …, n_L, 2 k])`, whose output is $m$, then $v$; the decoder is its mirror image
    `MLP([k, n_L, …, n_1, d])`. Parameters are named `encoder.layers.0.weight`, …, `decoder.layers.0.weight`, ….
    Initialisation: the table of `MLP`, by default Var $W_{ij}$ = Var $b_i$ = 1/(3 fan-in), uniform.

    Args:
        widths: $d$, the hidden widths of the encoder, $k$: at least two positive integers.
        decoder: `"gaussian"` (unit noise: scale the data instead) or `"bernoulli"` ($r$ are logits).
        activation: as in `MLP`.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the shape of $x$ or $ε$, is not what it must be.

    Cost: that of the two MLPs.
    Left out: more than one sample of the code (repeat $x$), learned noise variance, convolutions.
    Source: kingma2014auto.

    >>> vae = VAE([6, 5, 2], dtype=torch.float64, generator=seeded(0))
    >>> x, eps = normal(seeded(1), 4, 6), normal(seeded(2), 4, 2)
    >>> [tuple(part.shape) for part in vae(x, eps)]
    [(4, 6), (4, 2), (4, 2)]
    >>> vae.elbo(vae(x, eps), x).shape
    torch.Size([4])

    """

    def __init__(
        self,
        widths: Sequence[int],
        decoder: str = "gaussian",
        activation: str | Activation = "tanh",
        init: str | Law = "default",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.widths = checked_sizes("widths", widths, least=2)
        self.observations = checked_name("decoder", decoder, DECODERS)
        *path, code = self.widths
        self.encoder = MLP([*path, 2 * code], activation, init, True, dtype, device, generator)
        self.decoder = MLP(self.widths[::-1], activation, init, True, dtype, device, generator)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log variance of the code: (..., d) → (..., k), (..., k).

        >>> [tuple(part.shape) for part in VAE([3, 2]).encode(torch.zeros(5, 3))]
        [(5, 2), (5, 2)]
        """
        _check_last("x", x, self.widths[0])
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        return mean, log_variance

    def forward(self, x: Tensor, eps: Tensor) -> Output:
        """Return $(r, m, v)$ for data and noise."""
        mean, log_variance = self.encode(x)
        _check_noise(x, eps, self.widths[-1])
        return self.decoder(mean + (log_variance / 2).exp() * eps), mean, log_variance

    def elbo(self, output: Output, x: Tensor) -> Tensor:
        """Return the bound of this decoder, one number an example: see `gaussian_elbo` and `bernoulli_elbo`.

        >>> vae = VAE([3, 2], decoder="bernoulli")
        >>> x = torch.tensor([[1.0, 0.0, 1.0]])
        >>> bool(vae.elbo(vae(x, torch.zeros(1, 2)), x) < 0)
        True
        """
        return (gaussian_elbo if self.observations == "gaussian" else bernoulli_elbo)(output, x)

    def extra_repr(self) -> str:
        """Name the observations in the printed network."""
        return f"observations={self.observations}"


class LinearVAE(nn.Module):
    r"""The linear VAE: probabilistic PCA with a linear Gaussian encoder.

    $$p(z) = N(0, I), \quad p(x|z) = N(W z + μ, σ^2 I), \qquad q(z|x) = N(V (x - μ), D), \quad D = \mathrm{diag}(e^δ),$$
    $$p(x) = N(μ, W W^⊤ + σ^2 I), \qquad p(z|x) = N(M^{-1} W^⊤ (x - μ), σ^2 M^{-1}), \quad M = W^⊤ W + σ^2 I.$$

    The bound is tight where $q$ is that posterior, which needs $W^⊤ W$ diagonal: the maximum of the evidence,
    $W = U_k (Λ_k - σ^2)^{1/2}$ with $σ^2$ the mean of the other eigenvalues of the covariance, is also one of the bound.

    Shapes: $x$: (..., d), $ε$: (..., k) → $(W z + μ, V (x-μ), δ, \log σ^2)$: (..., d), (..., k), (..., k), (...).
    Parameters: `W` (d, k), `mu` (d,), `V` (k, d), `delta` (k,), `log_noise` () $= \log σ^2$.
    Initialisation: `W` and `V` by `init` with fan-in k and d, by default Gaussian with variances 1/k and 1/d;
    $μ$ has the law's bias variance (0 by default), $δ$ and $\log σ^2$ are 0.

    Args:
        inputs: $d$.
        latents: $k$.
        init: as in `MLP`.
        dtype: of the parameters; torch's default if None.
        device: of the parameters; torch's default if None.
        generator: a CPU generator for the initial draw; torch's global one if None.

    Raises:
        ArchitectureError: an argument above, or the shape of $x$ or $ε$, is not what it must be.

    Cost: $4 d k$ operations an example; `log_evidence` $2 d k^2$ more.
    Left out: an encoder with its own bias, a full covariance of the code.
    Source: lucas2019dont; tipping1999probabilistic.

    >>> vae = LinearVAE(5, 2, dtype=torch.float64, generator=seeded(0))
    >>> x = normal(seeded(1), 4, 5)
    >>> bool((vae.expected_elbo(x) <= vae.log_evidence(x)).all())
    True

    """

    def __init__(
        self,
        inputs: int,
        latents: int,
        init: str | Law = "lecun",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        d, k = checked_size("inputs", inputs), checked_size("latents", latents)
        make, law = Maker(dtype, device, generator), resolve_law(init)
        decoder, encoder = make.linear(k, d, law), make.linear(d, k, law, bias=False)
        self.W, self.mu, self.V = decoder.weight, decoder.bias, encoder.weight  # (d k), (d,), (k d)
        self.delta, self.log_noise = make.full((k,), 0.0), make.full((), 0.0)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log variance of the code: (..., d) → (..., k), (..., k).

        >>> [tuple(part.shape) for part in LinearVAE(3, 2).encode(torch.zeros(5, 3))]
        [(5, 2), (5, 2)]
        """
        _check_last("x", x, len(self.mu))
        mean = (x - self.mu) @ self.V.T
        return mean, self.delta.expand(mean.shape)

    def forward(self, x: Tensor, eps: Tensor) -> Output:
        r"""Return $(W z + μ, V (x-μ), δ, \log σ^2)$ for data and noise."""
        mean, log_variance = self.encode(x)
        _check_noise(x, eps, len(self.delta))
        z = mean + (log_variance / 2).exp() * eps
        return z @ self.W.T + self.mu, mean, log_variance, self.log_noise.expand(x.shape[:-1])

    def expected_elbo(self, x: Tensor) -> Tensor:
        r"""Return the mean of `gaussian_elbo` over $ε$, exactly: the noise adds $\mathrm{tr}(W D W^⊤)/σ^2$ to the error.

        >>> vae = LinearVAE(2, 1)
        >>> vae.expected_elbo(torch.zeros(3, 2)).shape
        torch.Size([3])
        """
        at_mean = gaussian_elbo(self(x, x.new_zeros(*x.shape[:-1], len(self.delta))), x)
        return at_mean - 0.5 * (self.W.square() @ self.delta.exp()).sum() * (-self.log_noise).exp()

    def log_evidence(self, x: Tensor) -> Tensor:
        r"""Return $\log p(x)$: (..., d) → (...), by the k × k matrix $M$.

        >>> round(LinearVAE(1, 1, Law("none", lambda n, m: 0.0)).log_evidence(torch.zeros(1)).item(), 6)
        -0.918939
        """
        _check_last("x", x, len(self.mu))
        (d, k), noise = self.W.shape, self.log_noise.exp()
        gram = self.W.T @ self.W  # (k k)
        M = (gram + gram.T) / 2 + noise * torch.eye(k, dtype=x.dtype, device=x.device)
        residual = x - self.mu
        code = residual @ self.W  # (... k)
        log_det = (d - k) * self.log_noise + 2 * torch.linalg.cholesky(M).diagonal().log().sum()
        quadratic = (residual.square().sum(-1) - ((code @ torch.linalg.inv(M)) * code).sum(-1)) / noise
        return -0.5 * (d * math.log(2 * math.pi) + log_det + quadratic)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Return $KL(N(m, \mathrm{diag}\, e^v) \| N(0, I)) = ½ \sum_i (m_i^2 + e^{v_i} - 1 - v_i)$: (..., k) → (...).

    >>> kl_divergence(torch.tensor([3.0, 0.0]), torch.zeros(2)).item()
    4.5
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


def gaussian_elbo(output: Output, x: Tensor) -> Tensor:
    r"""Return $\log N(x; r, σ^2 I) - KL(q(z|x) \| p(z))$: one sample of the bound on $\log p(x)$ an example.

    $\log σ^2$ is the fourth part of the output, or 0 where there are three.

    >>> r, m, v = torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1, 3)
    >>> round(gaussian_elbo((r, m, v), torch.zeros(1, 2)).item() + math.log(2 * math.pi), 6)
    0.0
    """
    reconstruction, mean, log_variance = output[:3]
    log_noise = output[3] if len(output) > 3 else torch.zeros_like(mean[..., 0])
    squares = (x - reconstruction).square().sum(-1) * (-log_noise).exp()
    return -0.5 * (squares + x.shape[-1] * (log_noise + math.log(2 * math.pi))) - kl_divergence(mean, log_variance)


def bernoulli_elbo(output: Output, x: Tensor) -> Tensor:
    r"""Return $\sum_i (x_i r_i - \log(1 + e^{r_i})) - KL(q(z|x) \| p(z))$, for $x_i ∈ \{0, 1\}$.

    >>> r, m, v = torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1, 3)
    >>> round(bernoulli_elbo((r, m, v), torch.ones(1, 2)).exp().item(), 6)
    0.25
    """
    logits, mean, log_variance = output
    return (x * logits - softplus(logits)).sum(-1) - kl_divergence(mean, log_variance)


def _check_last(name: str, x: Tensor, width: int) -> None:
    if x.dim() == 0 or x.shape[-1] != width:
        raise ArchitectureError(
            f"{name} has shape {tuple(x.shape)}, but the model asks for (..., {width}); images must be flattened first: "
            "x.flatten(1)."
        )


def _check_noise(x: Tensor, eps: Tensor, latents: int) -> None:
    expected = (*x.shape[:-1], latents)
    if tuple(eps.shape) != expected:
        raise ArchitectureError(
            f"eps has shape {tuple(eps.shape)}, expected {expected}: one standard normal number for each example of x "
            f"{tuple(x.shape)} and each latent, such as torch.randn{expected}."
        )


def _real(g: torch.Generator) -> tuple[tuple[Tensor, Tensor], Tensor]:
    x = normal(g, 4, 4)
    return (x, normal(g, 4, 2)), x


def _binary(g: torch.Generator) -> tuple[tuple[Tensor, Tensor], Tensor]:
    (x, eps), _ = _real(g)
    return ((x > 0).double(), eps), (x > 0).double()


def _linear() -> LinearVAE:
    """A linear VAE without a parameter that is zero."""
    law = Law("spread", lambda n, m: 1 / n, lambda n, m: 0.1)
    vae = LinearVAE(4, 2, law, dtype=torch.float64, generator=seeded(42))
    with torch.no_grad():
        vae.delta.copy_(torch.tensor([-0.4, 0.3]))
        vae.log_noise.fill_(-0.5)
    return vae


ENTRIES = (
    Architecture(
        name="vae",
        family="VAE",
        build=lambda: VAE([4, 5, 2], dtype=torch.float64, generator=seeded(40)),
        sample=sampled(_real),
        loss=lambda output, x: -gaussian_elbo(output, x).mean(),
        symmetry=None,
        source="kingma2014auto",
    ),
    Architecture(
        name="vae-bernoulli",
        family="VAE",
        build=lambda: VAE([4, 5, 2], decoder="bernoulli", dtype=torch.float64, generator=seeded(41)),
        sample=sampled(_binary),
        loss=lambda output, x: -bernoulli_elbo(output, x).mean(),
        symmetry=None,
        source="kingma2014auto",
    ),
    Architecture(
        name="linear-vae",
        family="LinearVAE",
        build=_linear,
        sample=sampled(_real),
        loss=lambda output, x: -gaussian_elbo(output, x).mean(),
        symmetry=None,
        source="lucas2019dont",
    ),
)
