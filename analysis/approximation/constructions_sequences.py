"""Networks on sequences and flows: automata in a recurrence, heads that copy, a flow that turns a line around."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import exp, isfinite, pi, sqrt

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from .construction import Construction
from .constructions_sets import words_of
from .domains import Box, Finite, whole

_EPS = 2.0**-52


class Automaton(nn.Module):
    r"""A recurrence of rectifiers that runs a finite automaton: :math:`h_t = \mathrm{relu}(W h_{t-1} + U x_t - 1)`.

    One neuron for each pair of state and letter is 1 if that state has just read that letter, else 0; one more is 1 before
    the first letter. Integers all of them: no error at any length. Another activation can be put in place of the rectifier.
    """

    def __init__(
        self,
        transitions: Sequence[Sequence[int]],
        start: int,
        accepting: Sequence[int],
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        self.activation = activation
        states, letters = len(transitions), len(transitions[0])
        ends = torch.tensor([*(state for row in transitions for state in row), start])  # the state of each neuron
        begun = torch.arange(states).repeat_interleave(letters)  # the state that neuron (s, a) starts from
        weight = torch.zeros(len(ends), len(ends), dtype=torch.float64)
        weight[:-1] = (begun[:, None] == ends).to(weight)
        letter = torch.zeros(len(ends), letters, dtype=torch.float64)
        letter[:-1] = torch.eye(letters, dtype=torch.float64).repeat(states, 1)
        self.weight = nn.Parameter(weight)  # W
        self.letter = nn.Parameter(letter)  # U
        self.readout = nn.Parameter(torch.isin(ends, torch.tensor(list(accepting), dtype=ends.dtype)).to(weight))

    def states(self, words: Tensor) -> Tensor:
        """What the neurons hold before the first letter and after each, (N, T, A) → (T + 1, N, n)."""
        return torch.stack(list(self._run(words)))

    def forward(self, words: Tensor) -> Tensor:
        """1 for accepted words, else 0, letters as unit vectors, (N, T, A) → (N,)."""
        (last,) = deque(self._run(words), maxlen=1)
        return last @ self.readout

    def _run(self, words: Tensor) -> Iterator[Tensor]:
        h = words.new_zeros(len(words), len(self.readout))
        h[:, -1] = 1.0
        yield h
        for x in words.unbind(1):
            h = self.activation(h @ self.weight.T + x @ self.letter.T - 1)
            yield h


def automaton(
    transitions: Sequence[Sequence[int]], start: int, accepting: Sequence[int], length: int = 8
) -> Construction:
    r"""A finite automaton of S states and A letters as a recurrent network of SA + 1 rectifiers, exact on words of any length.

    Args: ``transitions`` – S rows of A next states; ``start``; ``accepting`` – states; ``length`` of the words that
        :meth:`check` reads, all A^length of them; other lengths can be passed to ``network``.

    Errors: ``ArgumentError`` for a table that is not complete; ``CapacityError`` for more than 10⁵ words.

    Source: siegelmann1995computational.

    Example:
        Parity of a word of a thousand ones and a zero:

        >>> odd = automaton([[0, 1], [1, 0]], start=0, accepting=[1])
        >>> word = torch.eye(2, dtype=torch.float64)[[1] * 1001 + [0]]
        >>> odd.check().error, odd.network(word[None]).item()
        (0.0, 1.0)

    """
    states = len(transitions)
    letters = len(transitions[0]) if states else 0
    rows = all(len(row) == letters and all(0 <= s < states for s in row) for row in transitions)
    if not letters or not rows or not 0 <= start < states or not all(0 <= s < states for s in accepting):
        given = f"{states} states, start {start}, accepting {list(accepting)}"
        remedy = "Pass one row a state with the next state for each letter, all from 0 to S − 1."
        raise ArgumentError("transitions", "a complete table of states", given, remedy)
    whole("length", length, 1, 16)

    def run(words: Tensor) -> Tensor:
        found = []
        for word in words.argmax(-1).tolist():
            state = start
            for letter in word:
                state = transitions[state][letter]
            found.append(float(state in accepting))
        return torch.tensor(found).to(words)

    words = Finite(words_of(letters, length))
    statement = f"{states * letters + 1} rectifiers run an automaton of {states} states and {letters} letters."
    return Construction(Automaton(transitions, start, accepting), run, 0.0, words, statement, 1)


class PositionHead(nn.Module):
    """One softmax head whose logits depend on positions alone: out_i = Σ_j softmax(logits_i)_j v_j."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        n = len(logits)
        self.positions = nn.Parameter(torch.eye(n).to(logits))  # one unit vector a place
        self.query = nn.Parameter(logits.clone())  # (n n)

    def forward(self, values: Tensor) -> Tensor:
        """The outputs, (…, n) → (…, n)."""
        queries, keys = self.positions @ self.query, self.positions
        return values @ (queries @ keys.T).softmax(-1).T


def copy_head(length: int, offset: int = 1, sharpness: float = 20.0) -> Construction:
    r"""A head that copies the token some places before, round the end: softmax of β at one place and 0 elsewhere.

    Its weight there is :math:`e^\beta / (e^\beta + n - 1)`, so for values in [−1, 1] the error is at most
    :math:`2 (n - 1)/(e^\beta + n - 1)`, attained where all others are opposite: never zero, and at a fixed sharpness lost for
    long sequences.

    Args: ``length`` – n; ``offset`` – how far back; ``sharpness`` – β.

    Errors: ``ArgumentError`` for a length below 2 or above 14, or a sharpness that is not finite.

    Source: velickovic2024softmax.

    Example:
        >>> witness = copy_head(4, sharpness=2.0).check()
        >>> abs(witness.error - witness.bound) < 1e-12
        True

    """
    n = whole("length", length, 2, 14)
    if not isfinite(sharpness):
        raise ArgumentError("sharpness", "a finite number", repr(sharpness), "Pass sharpness=20.0.")
    logits = sharpness * torch.eye(n, dtype=torch.float64).roll(-offset, 1)
    corners = Finite.hypercube(n).points
    bound = 2 * (n - 1) / (exp(min(sharpness, 700.0)) + n - 1)
    statement = f"A sharp head copies the token {offset} before."
    target = Finite(2 * corners - 1)  # the error is convex: largest at corners
    return Construction(
        PositionHead(logits), lambda v: v.roll(offset, -1), bound, target, statement, 1, 50 * sqrt(n) * _EPS
    )


def average_head(length: int) -> Construction:
    """A head with equal logits: every token gets the mean of all, to rounding.

    Errors: ``ArgumentError`` for a length below 1 or above 14.

    Source: yun2020transformers.

    Example:
        >>> average_head(4)(torch.tensor([[1.0, -1.0, -1.0, 1.0]], dtype=torch.float64)).tolist()
        [[0.0, 0.0, 0.0, 0.0]]

    """
    n = whole("length", length, 1, 14)
    mean = Finite(2 * Finite.hypercube(n).points - 1)
    head = PositionHead(torch.zeros(n, n, dtype=torch.float64, device=torch.get_default_device()))
    statement = f"A head with equal logits averages {n} tokens."
    return Construction(
        head, lambda v: v.mean(-1, keepdim=True).expand_as(v), 0.0, mean, statement, 1, 50 * sqrt(n) * _EPS
    )


class AugmentedFlow(nn.Module):
    r"""A Neural ODE on (x, 0): the flow of a linear field for one unit of time, by Runge and Kutta's fourth-order steps."""

    def __init__(self, field: Tensor, steps: int) -> None:
        super().__init__()
        self.field = nn.Parameter(field.clone())  # (2 2)
        self.steps = steps

    def path(self, x: Tensor) -> Tensor:
        """The states along the way, (n, 1) → (steps + 1, n, 2)."""
        z, h = torch.cat([x, torch.zeros_like(x)], -1), 1 / self.steps
        states = [z]
        for _ in range(self.steps):
            k1 = z @ self.field.T
            k2 = (z + h / 2 * k1) @ self.field.T
            k3 = (z + h / 2 * k2) @ self.field.T
            k4 = (z + h * k3) @ self.field.T
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            states.append(z)
        return torch.stack(states)

    def forward(self, x: Tensor) -> Tensor:
        """The first coordinate at the end, (n, 1) → (n,)."""
        return self.path(x)[-1, :, 0]


def reflection_flow(steps: int = 100) -> Construction:
    r"""The map x ↦ −x on [−1, 1] by a flow with one added dimension, which no flow on the line can do: half a turn of the plane.

    :math:`\dot z = \pi J z` takes (x, 0) to (−x, 0) in unit time. A step of the fourth order errs by :math:`(\pi/N)^5/120` at
    most and expands nothing for :math:`\pi/N \le 2\sqrt2`: with N steps the error is at most :math:`\pi^5/(120 N^4)`.

    Errors: ``ArgumentError`` for fewer than two steps.

    Source: dupont2019augmented.

    Example:
        >>> turned = reflection_flow(50)
        >>> turned.check().holds, turned.error_bound < 1e-6
        (True, True)

    """
    N = whole("steps", steps, 2, 10**5)
    field = torch.tensor([[0.0, -pi], [pi, 0.0]], dtype=torch.float64, device=torch.get_default_device())
    statement = f"A flow of {N} steps with one added dimension turns the line around."
    bound, rounding = pi**5 / (120 * N**4), 50 * sqrt(10 * N) * _EPS
    return Construction(AugmentedFlow(field, N), lambda x: -x[:, 0], bound, Box.cube(1), statement, 257, rounding)
