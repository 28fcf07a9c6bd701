"""Alignment of two dense networks by permuting hidden units, which changes no function."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ..errors import ArgumentError, ModelStateError, ParameterError
from ..operators.snapshot import snapshot
from ..spectra.results import _axes

_REMEDY = "Weight matching takes a chain of nn.Linear with entrywise activations between them."


@dataclass(frozen=True, repr=False)
class Matching:
    r"""Permutations of hidden units that bring one network near another.

    Attributes:
        permutations: for each hidden layer's name an index (n_l,): unit i of the first network is matched to unit
            ``permutations[name][i]`` of the second.
        distances: ‖θ_a − θ_πb‖ before the first sweep over the layers and after each, never increasing.
        converged: whether the last sweep changed nothing.
        seed: of the order of the layers.

    """

    permutations: dict[str, Tensor]
    distances: Tensor
    converged: bool
    seed: int

    def apply(self, model: nn.Module) -> nn.Module:
        """A copy of the second network with its hidden units permuted; it computes the same function (this is checked).

        Errors: ``ParameterError`` for a model with other layers, ``ModelStateError`` if the function changed, because
        the model is not the chain that its modules suggest.
        """
        permuted = copy.deepcopy(model)
        layers = chain(permuted)
        indices = [self.permutations.get(name) for name in list(layers)[:-1]]
        widths = [layer.out_features for layer in list(layers.values())[:-1]]
        if len(indices) != len(self.permutations) or any(
            index is None or len(index) != width for index, width in zip(indices, widths, strict=True)
        ):
            expected = {name: len(index) for name, index in self.permutations.items()}
            given = str(dict(zip(layers, widths, strict=False)))
            raise ParameterError("model", f"hidden layers {expected}", given, "Pass the model that was matched.")
        before = None
        with torch.no_grad():
            for layer, index in zip(layers.values(), [*indices, None], strict=True):
                weight = layer.weight if before is None else layer.weight[:, before]
                layer.weight.copy_(weight if index is None else weight[index])
                if index is not None and layer.bias is not None:
                    layer.bias.copy_(layer.bias[index])
                before = index
        _check_same(model, permuted, next(iter(layers.values())))
        return permuted

    def __repr__(self) -> str:
        moved = sum(int((index != torch.arange(len(index))).sum()) for index in self.permutations.values())
        units = sum(map(len, self.permutations.values()))
        state = "converged" if self.converged else "not converged"
        first, last = self.distances[[0, -1]].tolist()
        sweeps = len(self.distances) - 1
        return f"Matching({moved} of {units} units moved, distance {first:.6g} → {last:.6g}; {state}, {sweeps} sweeps)"

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold."""
        permutations = {name: index.tolist() for name, index in self.permutations.items()}
        return dict(vars(self)) | {"permutations": permutations, "distances": self.distances.tolist()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Matching:
        """The inverse of :meth:`to_dict`."""
        permutations = {name: torch.tensor(index) for name, index in record["permutations"].items()}
        distances = torch.tensor(record["distances"], dtype=torch.float64)
        return cls(permutations, distances, record["converged"], record["seed"])

    def plot(self, ax: Any = None) -> Any:
        """The distance after each sweep, on matplotlib axes (new ones if None)."""
        ax = _axes(ax)
        ax.plot(range(len(self.distances)), self.distances.numpy(), "o-")
        ax.set_xlabel("sweeps")
        ax.set_ylabel("distance of the parameters")
        return ax


def match_weights(a: nn.Module, b: nn.Module, max_sweeps: int = 100, seed: int = 0) -> Matching:
    r"""Permutations of b's hidden units that bring its weights near those of a, by weight matching.

    .. math:: \min_{P_1, \dots, P_{L-1}} \sum_{l=1}^{L} \|W_l^a - P_l W_l^b P_{l-1}^\top\|^2 + \|b_l^a - P_l b_l^b\|^2,
        \qquad P_0 = P_L = I

    Coordinate descent: with all other layers fixed, P_l solves a linear assignment problem exactly; sweeps over the
    layers in random order go on until none moves.

    Args:
        a, b: networks of equal shape: a chain of ``nn.Linear`` with entrywise activations between them, found by
            walking the modules in order of registration, such as the lab's ``MLP`` or an ``nn.Sequential``.
        max_sweeps: the most sweeps.
        seed: of the order of the layers.

    Cost: a sweep takes an assignment problem, O(n_l³), and two matrix products for each hidden layer, on the CPU.

    Assumptions: the descent ends in a local minimum (with one hidden layer in a global one); the problem in general is
    NP-hard. Scales of ReLU units and signs of odd activations are left as they are.

    Errors: ``ArgumentError`` that names a module that does not fit such a chain, ``ParameterError`` for networks of
    different shapes, ``ModelStateError`` if permuting b changes its function.

    Source: Ainsworth, Hayase & Srinivasa 2023, Git Re-Basin: merging models modulo permutation symmetries.

    Example:
        >>> a = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
        >>> b = Matching({"0": torch.tensor([2, 0, 1])}, torch.zeros(2), True, 0).apply(a)
        >>> match_weights(a, b).permutations["0"]
        tensor([1, 2, 0])

    """
    if isinstance(max_sweeps, bool) or not isinstance(max_sweeps, int) or max_sweeps < 1:
        raise ArgumentError("max_sweeps", "an integer ≥ 1", repr(max_sweeps), "Pass max_sweeps=100.")
    first, second = chain(a), chain(b)
    _check_shapes(first, second)
    target, moving = ([_augmented(layer) for layer in layers.values()] for layers in (first, second))
    indices = [np.arange(len(matrix)) for matrix in moving]
    generator = torch.Generator().manual_seed(seed)
    distances, changed = [_distance(target, moving, indices)], True
    while changed and len(distances) <= max_sweeps:
        changed = False
        for layer in torch.randperm(len(target) - 1, generator=generator).tolist():
            changed |= _improve(target, moving, indices, layer)
        distances.append(_distance(target, moving, indices))
    permutations = {name: torch.from_numpy(index) for name, index in zip(list(first)[:-1], indices, strict=False)}
    # The names may differ between a and b; the permutations are b's to apply.
    permutations = dict(zip(list(second)[:-1], permutations.values(), strict=True))
    matching = Matching(permutations, torch.tensor(distances, dtype=torch.float64), not changed, seed)
    matching.apply(b)  # refuses a model whose function the permutation changes
    return matching


def chain(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a chain, by name; an error names the first module that does not fit."""
    if not isinstance(model, nn.Module):
        raise ArgumentError("model", "a torch.nn.Module", type(model).__name__, _REMEDY)
    layers: dict[str, nn.Linear] = {}
    for name, module in model.named_modules():
        where = f"{name or 'model'} ({type(module).__name__})"
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if not isinstance(module, nn.Linear):
            if own:
                given = f"one with {own[0][0]!r} of shape {tuple(own[0][1].shape)}"
                raise ArgumentError(where, "nn.Linear or a module without parameters", given, _REMEDY)
            continue
        if {key for key, _ in own} - {"weight", "bias"} or any(True for _ in module.children()):
            raise ArgumentError(where, "a plain nn.Linear", "a parametrised one", _REMEDY)
        if layers and module.in_features != (width := list(layers.values())[-1].out_features):
            expected = f"in_features = {width}, the width of {list(layers)[-1]!r}"
            raise ArgumentError(where, expected, str(module.in_features), _REMEDY)
        layers[name] = module
    if len(layers) < 2:
        raise ArgumentError("model", "at least two nn.Linear", f"{len(layers)} in {type(model).__name__}", _REMEDY)
    return layers


def _check_shapes(first: dict[str, nn.Linear], second: dict[str, nn.Linear]) -> None:
    shapes = [
        {name: (tuple(layer.weight.shape), layer.bias is not None) for name, layer in layers.items()}
        for layers in (first, second)
    ]
    if list(shapes[0].values()) != list(shapes[1].values()):
        expected, given = (
            ", ".join(f"{name} {shape}{' with bias' if bias else ''}" for name, (shape, bias) in side.items())
            for side in shapes
        )
        raise ParameterError("b", f"the layers of a: {expected}", given, "Match networks of equal shape.")


def _augmented(layer: nn.Linear) -> np.ndarray:
    """[W, b] in float64: the bias is the weight of a constant input, which no permutation moves."""
    parts = [layer.weight] if layer.bias is None else [layer.weight, layer.bias[:, None]]
    return torch.cat([part.detach() for part in parts], 1).to("cpu", torch.float64).numpy()


def _placed(matrix: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """A layer with its inputs permuted; the columns after them (the bias) stay."""
    if before is None:
        return matrix
    return np.concatenate([matrix[:, before], matrix[:, len(before) :]], 1)


def _improve(target: list[np.ndarray], moving: list[np.ndarray], indices: list[np.ndarray], layer: int) -> bool:
    """Solve for one hidden layer's permutation. True if the similarity grew by more than rounding."""
    width = len(moving[layer])
    incoming = _placed(moving[layer], indices[layer - 1] if layer else None)
    outgoing = moving[layer + 1][indices[layer + 1]][:, :width]
    similarity = target[layer] @ incoming.T + target[layer + 1][:, :width].T @ outgoing
    found = linear_sum_assignment(similarity, maximize=True)[1]
    units = np.arange(width)
    gain = (similarity[units, found] - similarity[units, indices[layer]]).sum()
    if not gain > 1e-13 * width * np.abs(similarity).max():
        return False
    indices[layer] = found
    return True


def _distance(target: list[np.ndarray], moving: list[np.ndarray], indices: list[np.ndarray]) -> float:
    before, square = None, 0.0
    for wanted, matrix, index in zip(target, moving, indices, strict=True):
        square += float(((wanted - _placed(matrix, before)[index]) ** 2).sum())
        before = index
    return square**0.5


def _check_same(model: nn.Module, permuted: nn.Module, first: nn.Linear) -> None:
    """Compare the two functions on random inputs, on private copies."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, first.in_features, generator=generator, dtype=torch.float64).to(first.weight)
    with torch.no_grad():
        before, after = (snapshot(side, None, None)[0](inputs) for side in (model, permuted))
    eps = torch.finfo(first.weight.dtype).eps
    if not bool((after - before).abs().max() <= 1e3 * eps * before.abs().max()):
        given = "one that changes when its hidden units are permuted"
        raise ModelStateError(type(model).__name__, "a chain of its linear layers", given, _REMEDY)
