r"""Which symmetries a model has: every group of a list, to what error, and the module that breaks each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..curvature.text_table import text_table
from ..errors import ArgumentError
from ..operators.data import call
from .action import Action, on_every
from .action_grids import rotations, translations
from .action_orders import cyclic_shifts, permutations, relabellings, reversal
from .action_points import signs
from .equivariance import equivariance, prepared
from .equivariance_results import Equivariance


@dataclass(frozen=True, repr=False)
class InvarianceReport:
    """What :func:`invariance_report` found: one :class:`Equivariance` for each group; its repr is one table."""

    findings: tuple[Equivariance, ...]

    def __getitem__(self, action: str) -> Equivariance:
        return {finding.action: finding for finding in self.findings}[action]

    @property
    def symmetries(self) -> tuple[str, ...]:
        """The groups under which the model is exact."""
        return tuple(finding.action for finding in self.findings if finding.exact)

    @property
    def culprits(self) -> dict[str, str]:
        """By group, the module that breaks a symmetry which is not exact."""
        return {f.action: f.culprit for f in self.findings if f.culprit is not None and not f.exact}

    def __repr__(self) -> str:
        kept = ", ".join(self.symmetries) or "none of them"
        header = ("group", "worst", "mean", "rounding", "elements", "verdict")
        return "\n".join([f"InvarianceReport: exact under {kept}", text_table(header, [*map(_cells, self.findings)])])

    def to_dict(self) -> dict[str, Any]:
        """A plain record that JSON can hold, if infinities and nan are let through."""
        return {"findings": [finding.to_dict() for finding in self.findings]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> InvarianceReport:
        """The inverse of :meth:`to_dict`."""
        return cls(tuple(Equivariance.from_dict(one) for one in record["findings"]))

    def plot(self) -> list[Any]:
        """A matplotlib figure for each group: the worst error of each module against rounding."""
        from matplotlib import pyplot as plt

        figures = []
        for finding in self.findings:
            figure, ax = plt.subplots(layout="constrained")
            finding.plot(ax)
            figures.append(figure)
        return figures


def _cells(finding: Equivariance) -> list[str]:
    numbers = [f"{x:.1e}" for x in (finding.worst, finding.mean.value, finding.tolerance)]
    of = "" if finding.tried == finding.order else f" of {finding.order:g}"
    return [finding.action, *numbers, f"{finding.tried}{of}", finding.verdict]


def invariance_report(
    model: nn.Module, inputs: Any, actions: Sequence[Action] | None = None, **options: Any
) -> InvarianceReport:
    r"""Which symmetries a model has, to what error, and which module breaks each.

    Args:
        model, inputs: as for :func:`equivariance`.
        actions: groups, each with its action on outputs. If None, those that the shapes suggest (:func:`suggested`). Of
            several with one name, later ones are numbered.
        options: of :func:`equivariance`, the same for all groups.

    Cost and errors: those of :func:`equivariance`, for each group.

    Example:
        A mean over the elements of a set does not notice their order:

        >>> class Mean(nn.Module):
        ...     def forward(self, x):
        ...         return x.mean(1)
        >>> x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
        >>> invariance_report(Mean(), x).symmetries[:2]
        ('orders of 4 elements, S4, invariant', 'cyclic shifts of 4 steps, invariant')

    """
    if actions is None:
        private, given = prepared(model, inputs, options.get("dtype"), options.get("batch_stats"))
        with torch.no_grad():
            actions = suggested(given, call(private, given))
    if not len(actions):
        remedy = "Pass groups, such as la.actions.permutations(n)."
        raise ArgumentError("actions", "at least one group", "none, and the shapes suggest none", remedy)
    return InvarianceReport(tuple(equivariance(model, inputs, action, **options) for action in _told_apart(actions)))


def _told_apart(actions: Sequence[Action]) -> list[Action]:
    """The same groups, with numbers where several have one name."""
    seen, named = dict[str, int](), list[Action]()
    for action in actions:
        count = seen[action.name] = seen.get(action.name, 0) + 1
        named.append(action if count == 1 else replace(action, name=f"{action.name} ({count})"))
    return named


def suggested(inputs: Any, output: Any) -> list[Action]:
    """The groups that shapes suggest, each with every action on outputs that their shape allows, flattened maps aside.

    Images (b, c, h, w): shifts of the torus, and rotations and reflections if they are square. Sequences or sets
    (b, n, d), or tokens (b, n): orders, cyclic shifts, reversal. Nodes and a graph: relabellings. Numbers: signs.

    Example:
        >>> [action.name for action in suggested(torch.ones(2, 5), torch.ones(2, 3))]
        ['signs ±1, even', 'signs ±1, odd']

    """
    if not isinstance(output, Tensor):
        return []
    found = []
    for action in _groups(inputs):
        ways = action.features(tuple(output.shape))
        for name, move in [way for way in ways if not way[0].startswith("flattened")]:
            found.append(replace(action, name=f"{action.name}, {name}", on_outputs=on_every(move)))
    return found


def _groups(inputs: Any) -> list[Action]:
    if isinstance(inputs, tuple | list):
        if len(inputs) != 2 or not all(isinstance(x, Tensor) and x.ndim > 1 for x in inputs):
            return []
        nodes, graph = inputs[0].shape[-2], inputs[1]
        edges = graph.dtype in (torch.int64, torch.int32) and graph.shape[-2] == 2
        adjacency = graph.is_floating_point() and graph.shape[-2:] == (nodes, nodes)
        return [relabellings(nodes)] if edges or adjacency else []
    if not isinstance(inputs, Tensor):
        return []
    shape = tuple(inputs.shape)
    if inputs.ndim == 4:
        square = [rotations(4, reflections=True)] if shape[-1] == shape[-2] else []
        return [translations(shape[-2:]), *square]
    if inputs.ndim == 3 or (inputs.ndim == 2 and not inputs.is_floating_point()):
        order = [permutations(shape[1]), cyclic_shifts(shape[1]), reversal()]
        return [*order, signs()] if inputs.is_floating_point() else order
    return [signs()] if inputs.is_floating_point() else []
