r"""The variance of a stochastic trace.

The trace of a matrix that is known only through products is estimated by $v^top A v$ with random $v$
@hutchinson1989stochastic. For a symmetric $A$ the variance of one probe is known exactly, and it depends on the law of $v$:
random signs never see the diagonal, Gaussian entries do @avron2011randomized. The matrix here is the Hessian of a network
that has begun to learn scikit-learn's digits @alpaydin1998digits, formed once, so that both sides are computed from it.
"""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor

import lemmata.analysis as la
from lemmata.architectures import MLP
from lemmata.studies.claim import Equals, Grid, claim, script
from lemmata.studies.data import digits, gaussian, one_hot
from lemmata.studies.training import descent, flat_parameters, load_parameters, objective, squared_error

HIDDEN = 2
BLOCK = 5000
LAWS = ("signs", "gaussian")


def network_matrix(kind: type[la.Hessian | la.GGN], seed: int) -> Tensor:
    """The Hessian or Gauss–Newton matrix, 160 × 160, of a tanh network after fifty steps of gradient descent on 200 digits."""
    inputs, labels = digits(200)
    batch = inputs, one_hot(labels)
    model = MLP([64, HIDDEN, 10], generator=torch.Generator().manual_seed(seed), device=inputs.device)
    path = descent(objective(model, squared_error, *batch), flat_parameters(model), step=0.1)
    flat, _ = next(islice(path, 50, None))
    dense = kind(load_parameters(model, flat), squared_error, batch).dense()
    return (dense + dense.T) / 2


def quadratic_forms(matrix: Tensor, law: str, probes: int, draws: torch.Generator) -> Tensor:
    """vᵀ A v for many independent probes v, each by one product."""
    forms = []
    for _ in range(probes // BLOCK):
        v = gaussian(draws, BLOCK, matrix.shape[0])
        v = v.sign() if law == "signs" else v
        forms.append(((v @ matrix.T) * v).sum(-1))
    return torch.cat(forms)


def predicted_variance(matrix: Tensor, law: str) -> Tensor:
    """2 ‖A‖² for Gaussian probes, less twice the squared diagonal for signs."""
    diagonal = matrix.diagonal().square().sum() if law == "signs" else 0.0
    return 2 * (matrix.square().sum() - diagonal)


@claim(
    source=("hutchinson1989stochastic", "avron2011randomized"),
    predicts=Equals(1, within=0.05),
    quick=Grid(law=LAWS, probes=[20_000], seeds=12),
    full=Grid(law=LAWS, probes=[200_000], seeds=20),
    controls={
        "the formula of the probes' own law: the other one": dict(other=True),
        "a symmetric matrix: half of it moved across the diagonal": dict(symmetric=False),
    },
)
def hutchinson_variance(
    law: str, probes: int, seed: int, other: bool = False, symmetric: bool = True
) -> dict[str, float]:
    r"""The variance of a trace estimate is twice the squared norm, less the diagonal for random signs.

    Let $A in RR^(n times n)$ be symmetric and $v$ have independent entries of mean zero and variance one. Then
    $EE thin v^top A v = "tr" A$, and
    $ "Var" v^top A v = cases(
        2 (norm(A)_F^2 - sum_i a_(i i)^2) quad & "for signs" plus.minus 1,
        2 norm(A)_F^2 & "for Gaussian entries"
      ) $
    @hutchinson1989stochastic @avron2011randomized. The value is the sample variance over the probes divided by the formula,
    averaged over networks: three hundred thousand probes for each law at the smaller size.

    The controls judge each law by the other's formula, and apply the formula to a matrix that is not symmetric but has the
    same quadratic form: only the symmetric part $(A + A^top)\/2$ may enter.
    """
    matrix = network_matrix(la.Hessian, seed)
    if not symmetric:
        matrix = matrix + torch.triu(matrix, 1) - torch.tril(matrix, -1)
    forms = quadratic_forms(matrix, law, probes, torch.Generator().manual_seed(seed))
    formula = predicted_variance(matrix, LAWS[1 - LAWS.index(law)] if other else law)
    error = (forms.mean() - matrix.trace()) / (forms.std() / probes**0.5)
    share = matrix.diagonal().square().sum() / matrix.square().sum()
    return {"value": (forms.var() / formula).item(), "z_of_mean": error.item(), "diagonal_share": share.item()}


if __name__ == "__main__":
    script(__file__)
