"""Trained networks of seven families: they have learned, the table of what was run is that of the grids, controls fail."""

from __future__ import annotations

import pytest
import torch

from lemmata.studies.curvature import coverage, trained_landscapes, trained_networks, trained_symmetries, zoo

pytestmark = pytest.mark.usefixtures("double")

CHEAP = ("MLP", "GNN")


@pytest.mark.parametrize("model", CHEAP)
def test_networks_have_learned_and_are_the_same_for_the_same_name(model: str) -> None:
    trained = zoo.network(model, 0)
    assert float(trained.losses[-1]) < 0.1 < 1 < float(trained.losses[0])
    assert zoo.network(model, zoo.NETWORKS) is trained is not zoo.network(model, 1)
    zoo._network.cache_clear()
    again = zoo.network(model, 0)
    assert again is not trained
    assert all(torch.equal(a, b) for a, b in zip(again.net.parameters(), trained.net.parameters(), strict=True))


@pytest.mark.parametrize("model", zoo.MODELS)
def test_the_jacobian_is_that_of_differences(model: str) -> None:
    trained = zoo.network(model, 0, steps=0).some(3, torch.Generator().manual_seed(0))
    around = trained_networks.Around(trained)
    v = torch.randn(len(around.start), generator=torch.Generator().manual_seed(1))
    exact = trained.jacobian() @ v
    assert (around.difference(around.logits, v) - exact).norm() < 1e-6 * exact.norm()
    assert exact.shape == (3, trained.net(*trained.inputs).shape[1])


@pytest.mark.parametrize("model", zoo.MODELS)
def test_units_change_places_unnoticed_and_only_on_both_sides(model: str) -> None:
    trained = zoo.network(model, 0, steps=0)
    before = trained_symmetries.outputs(trained, trained.parameters)
    order = trained_symmetries.order_of(trained, torch.Generator().manual_seed(0))
    assert not bool((order == torch.arange(len(order))).any())
    for whole in (True, False):
        moved = zoo.permuted(trained.parameters, zoo.UNITS[model], order, whole)
        change = (trained_symmetries.outputs(trained, moved) - before).abs().max() / before.abs().max()
        assert bool(change < 1e-12) == whole


def test_the_table_of_what_was_run_is_that_of_the_grids() -> None:
    cells = coverage.table()
    assert len(cells) == len(coverage.THEOREMS) * len(zoo.MODELS)
    assert set(coverage.ran()) <= set(coverage.THEOREMS)
    for theorem, absences in coverage.THEOREMS.items():
        named = [model for absence in absences for model in absence.models]
        assert len(named) == len(set(named))
        assert set(named) == set(zoo.MODELS) - coverage.ran().get(theorem, frozenset()), theorem
    assert all(cell.reason for cell in cells if cell.status != "run")
    gaps = [cell for cell in cells if cell.status == "gap"]
    assert 0 < 10 * len(gaps) <= len([cell for cell in cells if cell.status != "absent"])
    (shown,) = trained_networks.tables()
    assert sum(row[1:-1].count("run") for row in shown.rows) == sum(cell.status == "run" for cell in cells)
    assert all(row[-1] for row in shown.rows if set(row[1:-1]) != {"run"})


def test_the_table_notices_a_claim_that_nobody_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "THEOREMS", coverage.THEOREMS | {"a_new_theorem": ()})
    new = [cell for cell in coverage.table() if cell.theorem == "a_new_theorem"]
    assert [cell.status for cell in new] == ["gap"] * 7 and not any(cell.reason for cell in new)


@pytest.mark.parametrize("model", CHEAP)
def test_claims_hold_and_their_controls_fail_at_a_cheap_network(model: str) -> None:
    n, s, g = trained_networks, trained_symmetries, trained_landscapes
    assert (
        n.ggn_plus_residual_trained(model, 0)["value"]
        < 1e-7
        < n.ggn_plus_residual_trained(model, 0, residual=False)["value"]
    )
    assert n.fisher_is_ggn_trained(model, 0) < 1e-11 < n.fisher_is_ggn_trained(model, 0, empirical=True)
    assert (
        n.ggn_rank_count_trained(model, 3, 0)["value"]
        == 0
        != n.ggn_rank_count_trained(model, 3, 0, twice=True)["value"]
    )
    assert n.relu_residual_traceless_trained(model, 0) < 1e-11 < n.relu_residual_traceless_trained(model, 0, size=True)
    assert (
        s.continuous_symmetry_hessian_units(model, 0) < 1e-11 < s.continuous_symmetry_hessian_units(model, 0, both=True)
    )
    assert (
        g.saddle_escape_time_trained(model, 0)["value"]
        <= 1
        < g.saddle_escape_time_trained(model, 0, stable=True)["value"]
    )


def test_a_smooth_family_has_a_residual_with_a_trace() -> None:
    assert trained_networks.relu_residual_traceless_trained("neural ODE", 0) > 1e-3


def test_the_trained_transformer_has_the_predicted_number_of_flat_directions() -> None:
    assert trained_symmetries.attention_gauge_nullity_trained("transformer", 80, 0)["value"] == 0
    assert trained_symmetries.attention_gauge_nullity_trained("transformer", 80, 0, fixed="W_k")["value"] == -40


def test_layers_leave_the_edge_of_the_law_by_training() -> None:
    untrained, learned = (
        trained_landscapes.marchenko_pastur_random_layer_trained("GNN", 6, 0, learned=learned)
        for learned in (False, True)
    )
    assert untrained < 4 < learned
