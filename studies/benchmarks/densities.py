"""The spectral density from 64 Lanczos steps for each of 8 probes, set-up counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

import torch
from torch import Tensor

import lemmata.analysis as la

from .peers import PEERS
from .problems import Problem, spectral, true_eigenvalues, true_spectrum, true_trace
from .search import BUDGET, Entrant
from .table import Row, Target, failed, timed_row
from .timing import affordable

WORK, STEPS, PROBES = "density", 64, 8
TARGET = Target("≥", 2)
Measure = tuple[Tensor, Tensor]


def rows(device: str, repeats: int) -> Iterator[Row]:
    """All rows, network by network."""
    for problem in spectral(device):
        yield from measure(problem, device, repeats)


def ours(problem: Problem, steps: int, probes: int) -> Callable[[int], Measure]:
    """Nodes and weights."""

    def run(seed: int) -> Measure:
        H = la.Hessian(problem.model, problem.loss, problem.batch)
        found = la.spectral_density(H, steps, probes, seed=seed)
        return found.nodes.flatten(), found.weights.flatten()

    return run


def measure(problem: Problem, device: str, repeats: int, steps: int = STEPS, probes: int = PROBES) -> list[Row]:
    """One network."""
    place, lost, says = (WORK, problem.name), [], yardstick(problem)
    entrants = {"lemmata": Entrant("", ours(problem, steps, probes), says.error)}
    for peer in PEERS:
        try:
            entrant = Entrant("", peer.density(problem, steps, probes), says.error)
            entrant()
            entrants[peer.name] = entrant
        except Exception as fault:  # a peer's failure is a finding, not ours to repair
            lost.append(failed(place, peer.name, fault))
    rounds = affordable(entrants, device, repeats, BUDGET)
    found = []
    for name, entrant in entrants.items():
        target = None if name == "lemmata" else TARGET
        figures = rounds, ("lemmata", "ours"), median(entrant.errors), target, says.name
        found.append(timed_row(place, name, *figures))
    return found + lost


class Distance:
    """The distance of a measure from the spectrum, relative to the spectrum's width."""

    name = "error: Wasserstein distance ÷ width"

    def __init__(self, spectrum: Tensor) -> None:
        self.spectrum = spectrum

    def error(self, found: Measure) -> float:
        """∫ |F − F̂| dx ÷ width."""
        nodes, weights = (part.detach().cpu().double() for part in found)
        size, width = len(self.spectrum), float(self.spectrum[-1] - self.spectrum[0])
        places, order = torch.cat([nodes, self.spectrum]).sort()
        jumps = torch.cat([weights, torch.full((size,), -1 / size, dtype=torch.float64)])[order]
        return float((jumps.cumsum(0)[:-1].abs() * places.diff()).sum()) / width


class Mean:
    """The distance of a measure's mean from tr H / P, relative to the largest eigenvalue; where P is too large for more."""

    name = "error: mean eigenvalue ÷ largest"

    def __init__(self, mean: float, largest: float) -> None:
        self.mean, self.largest = mean, largest

    def error(self, found: Measure) -> float:
        """|∫ x dF̂ − tr H / P| ÷ λ."""
        nodes, weights = (part.detach().cpu().double() for part in found)
        return abs(float(nodes @ weights) - self.mean) / self.largest


def yardstick(problem: Problem) -> Distance | Mean:
    """The sharpest truth that can be had."""
    spectrum = true_spectrum(problem)
    if spectrum is not None:
        return Distance(spectrum)
    return Mean(true_trace(problem)[0] / problem.size, abs(float(true_eigenvalues(problem, 1)[0])))
