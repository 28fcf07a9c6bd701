"""Which theorem on curvature was put to which trained network, and why others were not.

What was run is read from the claims' grids, never written twice; here stand the theorems and the reasons for the rest. A reason
is either that the networks of a family lack a hypothesis, or that the work is not done, and then it counts as a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from lemmata.studies.claim import Table
from lemmata.studies.curvature.zoo import MODELS

STUDIES = ("trained_networks", "trained_symmetries", "trained_landscapes")
#: How the identifier of a claim ends in these studies, after that of the theorem.
ENDINGS = ("trained", "shift", "units")

_LINEAR = "no hypothesis holds: the theorem is about deep linear networks, and these are not linear"
_TANH_UNITS = "no pair of layers around a positively homogeneous unit that could trade scale"
_HEAD = "no attention"
_LAYER = "no such layer or product of independent Gaussian matrices, and training has made the entries dependent"


class Absence(NamedTuple):
    """Why a theorem was not put to some families."""

    models: tuple[str, ...]
    reason: str
    gap: bool = False


def _everywhere(reason: str, gap: bool = False) -> tuple[Absence, ...]:
    return (Absence(MODELS, reason, gap),)


#: Every theorem on curvature, and those on the spectra of layers, with the reasons where it was not run.
THEOREMS: Mapping[str, tuple[Absence, ...]] = {
    "ggn_plus_residual": (),
    "fisher_is_ggn": (),
    "relu_residual_traceless": (),
    "relu_trace_at_initialisation": _everywhere(
        "the formula is the mean over initialisations of two layers, not of trained weights"
    ),
    "ggn_rank_count": (),
    "continuous_symmetry_hessian": (),
    "rescale_degeneracy_count": (
        Absence(("LSTM", "transformer", "neural ODE"), _TANH_UNITS),
        Absence(("GNN",), "one graph has fewer outputs, 136, than the network has parameters, 316"),
    ),
    "attention_gauge_nullity": (Absence(tuple(m for m in MODELS if m != "transformer"), _HEAD),),
    "deep_linear_minimum_nullity": _everywhere(_LINEAR),
    "baldi_hornik_landscape": _everywhere(_LINEAR),
    "kawaguchi_no_bad_minima": _everywhere(_LINEAR),
    "linear_hessian_trace": _everywhere(_LINEAR),
    "linear_vae_collapse": _everywhere(_LINEAR),
    "catapult_window": _everywhere("the window is that of the product of two scalars' worth of linear layers, u · v"),
    "functional_symmetry_orbit": (),
    "functional_symmetry_barrier": (),
    "dinh_sharpness_not_invariant": (Absence(("LSTM", "transformer", "neural ODE"), _TANH_UNITS),),
    "hutchinson_variance": (),
    "hutchpp_rate": (),
    "slq_gauss_exactness": (),
    "spectral_density": (),
    "stability_thresholds": (),
    "edge_of_stability": (),
    "hessian_outliers_classes": (),
    "saddle_escape_time": (),
    "sgd_stationary_covariance": (),
    "intrinsic_dimension_objective": (),
    "mode_connectivity": (),
    "pac_bayes_coverage": _everywhere(
        "not done: coverage is over many data sets of a known population, each with a network trained on it", gap=True
    ),
    "marchenko_pastur_random_layer": (),
    "bbp_transition": _everywhere(
        "no planted spike of known strength: training decides what it writes, and how strongly"
    ),
    "conv_circulant_singular_values": (
        Absence(tuple(m for m in MODELS if m != "CNN"), "no cyclic convolution"),
        Absence(("CNN",), "not done for trained kernels", gap=True),
    ),
    "zero_pad_norm_bounded_by_symbol": (
        Absence(tuple(m for m in MODELS if m != "ResNet"), "no convolution padded by zeros"),
        Absence(("ResNet",), "not done for trained kernels", gap=True),
    ),
    "lyapunov_gaussian_product": _everywhere(_LAYER),
    "dynamical_isometry": _everywhere(_LINEAR),
    "fuss_catalan_spectrum": _everywhere(_LAYER),
}


class Cell(NamedTuple):
    """A theorem and a family: run, absent (a hypothesis) or a gap, and why."""

    theorem: str
    model: str
    status: str
    reason: str


def theorem_of(claim: str) -> str:
    """The theorem that a claim of these studies belongs to.

    >>> theorem_of("continuous_symmetry_hessian_shift")
    'continuous_symmetry_hessian'
    """
    stem, _, ending = claim.rpartition("_")
    return stem if ending in ENDINGS else claim


@cache
def ran() -> Mapping[str, frozenset[str]]:
    """The families in the grids of each theorem's claims."""
    from lemmata.studies.study import load

    found: dict[str, frozenset[str]] = {}
    for study in STUDIES:
        for claim in load(f"lemmata.studies.curvature.{study}").claims:
            theorem = theorem_of(claim.id)
            found[theorem] = found.get(theorem, frozenset()) | frozenset(claim.quick.coordinates["model"])
    return found


def table() -> list[Cell]:
    """Every theorem with every family."""
    cells = []
    for theorem, absences in THEOREMS.items():
        for model in MODELS:
            why = [absence for absence in absences if model in absence.models]
            status = "run" if model in ran().get(theorem, ()) else "gap" if not why or why[0].gap else "absent"
            cells.append(Cell(theorem, model, status, why[0].reason if why and status != "run" else ""))
    return cells


def as_table() -> Table:
    """The table for the report: a row for each theorem, with the reasons of what was not run."""
    signs, rows = {"run": "run", "absent": "–", "gap": "gap"}, []
    for theorem in THEOREMS:
        cells = [cell for cell in table() if cell.theorem == theorem]
        missing: dict[str, list[str]] = {}
        for cell in cells:
            if cell.status != "run":
                missing.setdefault(cell.reason, []).append(cell.model)
        whole = len(missing) == 1 and all(cell.status != "run" for cell in cells)
        why = "; ".join(reason if whole else f"{', '.join(models)}: {reason}" for reason, models in missing.items())
        rows.append((theorem.replace("_", " "), *(signs[cell.status] for cell in cells), why))
    count = {status: sum(cell.status == status for cell in table()) for status in signs}
    note = (
        f"Every theorem on curvature with every family of trained networks. Of {count['run'] + count['gap']} pairs whose "
        f"hypotheses hold, {count['run']} were run, in this study or in the two that follow, and {count['gap']} were not (gap). "
        f"For the other {count['absent']} (–) the networks lack a hypothesis; the theorem has a study of its own."
    )
    return Table("Which theorem was put to which network", note, ("theorem", *MODELS, "why not"), tuple(rows))
