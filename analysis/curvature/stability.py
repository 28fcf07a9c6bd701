"""Curvatures at which optimisers become unstable, and Adam's preconditioner, with which its own is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import ArgumentError, OperandError
from ..operators.base import Derived, Operator


def gradient_descent_threshold(lr: float) -> float:
    r"""The curvature above which gradient descent diverges on a quadratic, 2/η.

    .. math:: \theta_{t+1} = \theta_t - \eta \nabla L(\theta_t)

    Source: Cohen et al. 2021, Gradient descent on neural networks typically occurs at the edge of stability.

    >>> gradient_descent_threshold(0.5)
    4.0
    """
    return heavy_ball_threshold(lr, 0.0)


def heavy_ball_threshold(lr: float, momentum: float) -> float:
    r"""The curvature above which Polyak's momentum diverges on a quadratic, (2 + 2β)/η.

    .. math:: v_{t+1} = \beta v_t + \nabla L(\theta_t), \qquad \theta_{t+1} = \theta_t - \eta v_{t+1}

    as ``torch.optim.SGD(momentum=β)`` does; with ``dampening=τ`` divide by 1 − τ.

    Source: Cohen et al. 2021, Gradient descent on neural networks typically occurs at the edge of stability, app. B.

    >>> heavy_ball_threshold(0.5, 0.5)
    6.0
    """
    _check_rates(lr, momentum)
    return (2 + 2 * momentum) / lr


def nesterov_threshold(lr: float, momentum: float) -> float:
    r"""The curvature above which Nesterov's momentum diverges on a quadratic, (2 + 2β)/(η (1 + 2β)).

    .. math:: v_{t+1} = \beta v_t + \nabla L(\theta_t), \qquad
        \theta_{t+1} = \theta_t - \eta (\nabla L(\theta_t) + \beta v_{t+1})

    as ``torch.optim.SGD(momentum=β, nesterov=True)`` does.

    Source: Cohen et al. 2021, Gradient descent on neural networks typically occurs at the edge of stability, app. B.

    >>> nesterov_threshold(0.5, 0.5)
    3.0
    """
    return heavy_ball_threshold(lr, momentum) / (1 + 2 * momentum)


def adam_threshold(lr: float, beta1: float = 0.9) -> float:
    r"""The preconditioned curvature above which Adam with a frozen preconditioner diverges, (2 + 2β₁)/((1 − β₁) η).

    .. math:: m_{t+1} = \beta_1 m_t + (1 - \beta_1) \nabla L(\theta_t), \qquad
        \theta_{t+1} = \theta_t - \eta P^{-1} m_{t+1}

    It is to be compared with λ₁ of :math:`P^{-1/2} H P^{-1/2}`, P as :func:`adam_preconditioner` gives it.

    Source: Cohen et al. 2022, Adaptive gradient methods at the edge of stability.

    >>> round(adam_threshold(1.0), 9)
    38.0
    """
    return heavy_ball_threshold(lr, beta1) / (1 - beta1)


def _check_rates(lr: float, momentum: float) -> None:
    if not lr > 0:
        raise ArgumentError("lr", "a number > 0", repr(lr), "Pass the optimiser's step size.")
    if not 0 <= momentum < 1:
        raise ArgumentError("momentum", "a number in [0, 1)", repr(momentum), "Pass the optimiser's β.")


def adam_preconditioner(optimizer: torch.optim.Optimizer) -> Callable[[Mapping[str, Tensor]], Tensor | None]:
    r"""The diagonal of Adam's preconditioner at the time of each call, None before the first step.

    .. math:: P_t = (1 - \beta_1^t) \left(\sqrt{\frac{\nu_t}{1 - \beta_2^t}} + \varepsilon\right)

    Args:
        optimizer: ``torch.optim.Adam`` or ``AdamW`` on the parameters that are tracked, without ``amsgrad``.

    Source: Cohen et al. 2022, Adaptive gradient methods at the edge of stability, eq. 2 and 3.
    """
    if not isinstance(optimizer, torch.optim.Adam) or any(group["amsgrad"] for group in optimizer.param_groups):
        remedy = "Pass the Adam or AdamW that trains the model, built without amsgrad."
        raise ArgumentError("optimizer", "torch.optim.Adam without amsgrad", type(optimizer).__name__, remedy)

    def diagonal(parameters: Mapping[str, Tensor]) -> Tensor | None:
        groups = {id(tensor): group for group in optimizer.param_groups for tensor in group["params"]}
        parts = []
        for name, tensor in parameters.items():
            if id(tensor) not in groups:
                remedy = "Track the parameters that the optimiser trains, with params=…."
                raise ArgumentError(name, "a parameter of the optimiser", "one that it does not have", remedy)
            group, state = groups[id(tensor)], optimizer.state.get(tensor)
            if not state:
                return None
            (beta1, beta2), step = group["betas"], float(state["step"])
            root = (state["exp_avg_sq"].detach() / (1 - beta2**step)).sqrt()
            parts.append(((1 - beta1**step) * (root + group["eps"])).reshape(-1))
        return torch.cat(parts)

    return diagonal


class Preconditioned(Derived):
    r""":math:`P^{-1/2} A P^{-1/2}` for a positive diagonal P: the eigenvalues of :math:`P^{-1} A`, kept symmetric.

    Errors: ``OperandError`` for a diagonal that is not finite, positive and of the operator's size.

    Example:
        >>> from lemmata.analysis import Dense
        >>> Preconditioned(Dense(torch.eye(2)), torch.tensor([4.0, 1.0])).dense().diagonal()
        tensor([0.2500, 1.0000])

    """

    def __init__(self, operator: Operator, diagonal: Tensor) -> None:
        fits = isinstance(diagonal, Tensor) and diagonal.shape == operator.shape[:1]
        if not fits or not bool(((diagonal > 0) & diagonal.isfinite()).all()):
            given = f"shape {tuple(diagonal.shape)}" if isinstance(diagonal, Tensor) else type(diagonal).__name__
            remedy = "Pass the optimiser's positive preconditioner, flat in the operator's order."
            raise OperandError("diagonal", f"{operator.shape[0]} finite positive entries", given, remedy)
        self.operator, self.scale = operator, diagonal.detach().to(operator.device, operator.dtype).rsqrt()
        self.layout, self.dtype, self.device = operator.layout, operator.dtype, operator.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        return self.operator._multiply(vectors * self.scale) * self.scale
