"""Batches, weights, binding and the model's integrity. Truth: the same data in one batch, or a closed form."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lemmata.analysis as la
from lemmata.analysis.errors import DataError, LossError, ModelStateError

FLOAT = torch.float64
MODES = pytest.mark.parametrize("cap", [2**30, 0], ids=["retained", "fresh"])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def small(*extra: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), *extra, nn.Tanh(), nn.Linear(5, 3)).to(FLOAT)


def batch(examples: int = 11) -> tuple[Tensor, Tensor]:
    return torch.randn(examples, 4, dtype=FLOAT), torch.randint(0, 3, (examples,))


def ragged(X: Tensor, y: Any) -> list[tuple[Tensor, Any]]:
    return [(X[:2], y[:2]), (X[2:7], y[2:7]), (X[7:], y[7:])]


def close(a: Tensor, b: Tensor, tol: float = 1e-12) -> bool:
    return bool((a - b).norm() <= tol * (1 + b.norm()))


CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 3.0], dtype=FLOAT)
LOSSES = {
    "mean": nn.CrossEntropyLoss(),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "ignored": nn.CrossEntropyLoss(ignore_index=1),
    "weighted": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
    "weighted, smooth, ignored": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, ignore_index=0, label_smoothing=0.1),
    "function": F.cross_entropy,
    "partial": partial(F.cross_entropy, weight=CLASS_WEIGHTS, ignore_index=2),
    "partial sum": partial(F.cross_entropy, reduction="sum"),
}


@MODES
@pytest.mark.parametrize("name", LOSSES)
def test_ragged_batches_equal_one_batch(cap: int, name: str) -> None:
    model, (X, y), loss = small(), batch(), LOSSES[name]
    one, many = (la.Hessian(model, loss, data, memory_cap=cap) for data in ((X, y), ragged(X, y)))
    assert close(many.dense(), one.dense())
    assert close(many.gradient, one.gradient)
    assert many.value == pytest.approx(one.value, rel=1e-12)


def test_an_unweighted_mean_over_ragged_batches_would_be_seen() -> None:
    model, (X, y) = small(), batch()
    one = la.Hessian(model, LOSSES["weighted"], (X, y)).dense()
    parts = [la.Hessian(model, LOSSES["weighted"], b).dense() for b in ragged(X, y)]
    assert not close(sum(parts) / 3, one, 1e-3)


def test_a_batch_whose_targets_are_all_ignored_counts_for_nothing() -> None:
    model, (X, y) = small(), batch()
    y[:2] = -100
    loss = nn.CrossEntropyLoss()
    assert close(la.Hessian(model, loss, ragged(X, y)).dense(), la.Hessian(model, loss, (X[2:], y[2:])).dense())
    with pytest.raises(DataError, match="at least one example that counts"):
        la.Hessian(model, loss, (X[:2], y[:2]))


def test_soft_targets_elementwise_and_summed_plain_losses() -> None:
    model, (X, _) = small(), batch()
    soft, wide = torch.rand(11, 3, dtype=FLOAT), torch.randn(11, 3, dtype=FLOAT)

    def summed(output: Tensor, target: Tensor) -> Tensor:
        return ((output - target) ** 4).sum()

    for loss, target, reduction in [(F.cross_entropy, soft, None), (nn.MSELoss(), wide, None), (summed, wide, "sum")]:
        one, many = (la.Hessian(model, loss, d, reduction=reduction) for d in ((X, target), ragged(X, target)))
        assert close(many.dense(), one.dense())


def test_a_mean_of_unknown_divisor_is_refused() -> None:
    model = nn.Linear(4, 3).to(FLOAT)
    lengths = [(torch.randn(2, t, 4, dtype=FLOAT), torch.randn(2, t, 3, dtype=FLOAT)) for t in (3, 5)]
    with pytest.raises(LossError, match=r"lambda.*shapes \(n, 3, 3\) and \(n, 5, 3\).*Hessian.of"):
        la.Hessian(model, lambda o, t: ((o - t) ** 2).mean(), lengths)
    la.Hessian(model, nn.MSELoss(), lengths)
    X, y = batch()
    y[0] = -100
    with pytest.raises(LossError, match=r"ignored targets.*nn.CrossEntropyLoss\(ignore_index"):
        la.Hessian(model, lambda o, t: F.cross_entropy(o, t), ragged(X, y))


@MODES
def test_loader_tuple_and_mapping_inputs(cap: int) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.layer(a * b.tanh())

    model, (X, y), b = Two().to(FLOAT), batch(), torch.randn(11, 4, dtype=FLOAT)
    loader = DataLoader(TensorDataset(X, y), batch_size=4)
    plain = model.layer
    whole = la.Hessian(plain, F.cross_entropy, (X, y), memory_cap=cap).dense()
    assert close(la.Hessian(plain, F.cross_entropy, loader, memory_cap=cap).dense(), whole)
    assert close(la.Hessian(plain, F.cross_entropy, [X, y], memory_cap=cap).dense(), whole)
    by_tuple = la.Hessian(model, F.cross_entropy, ((X, b), y), memory_cap=cap)
    by_name = la.Hessian(model, F.cross_entropy, ({"b": b, "a": X}, y), memory_cap=cap)
    assert close(by_tuple.dense(), la.Hessian(plain, F.cross_entropy, (X * b.tanh(), y)).dense())
    assert torch.equal(by_tuple.dense(), by_name.dense())


def test_parameters_by_pattern_predicate_and_frozen_ones_by_name() -> None:
    model, data = small(), batch()
    whole = la.Hessian(model, F.cross_entropy, data)
    weights = la.Hessian(model, F.cross_entropy, data, params="*weight")
    assert list(weights.layout.names) == ["0.weight", "2.weight"]
    assert close(weights.dense(), whole.restrict("*weight").dense())
    assert close(
        la.Hessian(model, F.cross_entropy, data, params=lambda n: n == "2.bias").dense(), whole.dense()[-3:, -3:]
    )
    model[0].requires_grad_(False)
    assert la.Hessian(model, F.cross_entropy, data).layout.names == ("2.weight", "2.bias")
    named = la.Hessian(model, F.cross_entropy, data, params=["0.*", "2.*"])
    assert close(named.dense(), whole.dense())


@MODES
def test_tied_weights_count_once_and_unreached_parameters_have_zero_rows(cap: int) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.unused = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(2, 1)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    model, X = Tied().to(FLOAT), torch.randn(6, 3, dtype=FLOAT)
    H = la.Hessian(model, nn.MSELoss(), (X, X), memory_cap=cap)
    written = la.Hessian.of(lambda p: ((X @ p["W"].T @ p["W"].T - X) ** 2).mean(), {"W": model.a.weight})
    assert H.shape == (12, 12)
    assert close(H.dense()[:9, :9], written.dense())
    assert not H.dense()[9:].any()
    assert la.Hessian(model, nn.MSELoss(), (X, X), params="b.weight").layout.names == ("a.weight",)


@MODES
def test_bound_at_construction(cap: int) -> None:
    model, data = small(), batch()
    H = la.Hessian(model, F.cross_entropy, data, memory_cap=cap)
    before = H.dense()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(1)
    model.train()
    assert torch.equal(H.dense(), before)
    assert not close(la.Hessian(model, F.cross_entropy, data).dense(), before, 1e-3)
    x = {"x": torch.ones(2)}
    G = la.Hessian.of(lambda p: (p["x"] ** 3).sum(), x, memory_cap=cap)
    x["x"].zero_()
    assert torch.equal(G.dense(), 6 * torch.eye(2))


def state(model: nn.Module) -> list[Any]:
    tensors = [t.clone() for t in (*model.parameters(), *model.buffers())]
    return [tensors, [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]]


@MODES
@pytest.mark.parametrize("stats", ["frozen", "batch"])
def test_model_is_untouched_also_after_an_error(cap: int, stats: str) -> None:
    model, data = small(nn.BatchNorm1d(5)), batch()
    model.train()
    tensors, modes, flags = state(model)

    def raises(output: Tensor, target: Tensor) -> Tensor:
        raise KeyError("mine")

    random = torch.get_rng_state()
    H = la.Hessian(model, F.cross_entropy, data, batch_stats=stats, memory_cap=cap)
    la.eigenpairs(H, 2)
    with pytest.raises(KeyError, match="mine"):
        la.Hessian(model, raises, data, batch_stats=stats, memory_cap=cap)
    with pytest.raises(ModelStateError):
        la.Hessian(model, F.cross_entropy, data, memory_cap=cap)
    now = state(model)
    assert all(torch.equal(a, b) for a, b in zip(tensors, now[0], strict=True))
    assert [modes, flags] == now[1:]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


@MODES
def test_batch_statistics_are_chosen_named_and_right(cap: int) -> None:
    model, data = small(nn.BatchNorm1d(5)), batch()
    model(data[0])  # moves the running statistics
    frozen = la.Hessian(model, F.cross_entropy, data, batch_stats="frozen", memory_cap=cap)
    live = la.Hessian(model, F.cross_entropy, data, batch_stats="batch", memory_cap=cap)
    assert "batch_stats='frozen'" in repr(frozen) and "batch_stats='batch'" in repr(live)
    assert close(frozen.dense(), la.Hessian(copy.deepcopy(model).eval(), F.cross_entropy, data).dense())
    assert not close(frozen.dense(), live.dense(), 1e-3)

    def written(p: dict[str, Tensor]) -> Tensor:
        h = data[0] @ p["0.weight"].T + p["0.bias"]
        h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt() * p["1.weight"] + p["1.bias"]
        return F.cross_entropy(h.tanh() @ p["3.weight"].T + p["3.bias"], data[1])

    assert close(live.dense(), la.Hessian.of(written, dict(model.named_parameters())).dense(), 1e-9)


def test_dtype_casts_copies() -> None:
    model, (X, y) = small().float(), batch()
    H = la.Hessian(model, nn.CrossEntropyLoss(weight=CLASS_WEIGHTS.float()), (X.float(), y), dtype=FLOAT)
    assert H.dtype == FLOAT and model[0].weight.dtype == torch.float32
    exact = copy.deepcopy(model).double()
    truth = la.Hessian(exact, nn.CrossEntropyLoss(weight=CLASS_WEIGHTS.float().double()), (X.float().double(), y))
    assert close(H.dense(), truth.dense())


def test_the_mode_follows_the_cap_and_the_number_of_batches() -> None:
    model, (X, y) = small(), batch()
    held = la.Hessian(model, F.cross_entropy, (X, y)).plan().bytes
    assert "retained" in la.Hessian(model, F.cross_entropy, (X, y), memory_cap=held).mode
    assert "fresh" in la.Hessian(model, F.cross_entropy, (X, y), memory_cap=1000).mode
    assert "fresh" in la.Hessian(model, F.cross_entropy, [(X, y)] * 50, memory_cap=2 * held).mode
    plan = la.Hessian(model, F.cross_entropy, (X, y)).plan(7)
    assert plan.products == 7 and plan.seconds > 0 and plan.bytes == held
    assert "7 products" in repr(plan)


def test_data_that_change_between_passes_are_noticed() -> None:
    class Noisy:
        def __init__(self) -> None:
            self.passes = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            self.passes += 1
            X, y = batch()
            yield X + self.passes, y

    H = la.Hessian(small(), F.cross_entropy, Noisy(), memory_cap=0)
    with pytest.raises(DataError, match="same batches on every pass.*augmentation"):
        H @ torch.ones(H.shape[0], dtype=FLOAT)
    X, y = batch()
    H, ones = la.Hessian(small(), F.cross_entropy, (X, y)), torch.ones(43, dtype=FLOAT)
    before = H @ ones
    X.mul_(2)  # the graph has copies of inputs
    assert torch.equal(H @ ones, before)
    y.zero_()
    with pytest.raises(DataError, match="inplace operation.*again"):
        H @ ones


def test_held_bytes_count_what_grows_with_the_batch_and_are_freed() -> None:
    def held(examples: int) -> int:
        return la.Hessian(small(), F.cross_entropy, batch(examples)).plan().bytes

    grown = held(2000) - held(1000)
    least = 1000 * (4 + 5 + 3) * 8  # inputs, hidden layer and log-probabilities in float64
    assert least <= grown <= 8 * least
    H = la.Hessian(small(), F.cross_entropy, batch())
    gone = weakref.ref(H)
    gc.disable()
    try:
        del H
        assert gone() is None
    finally:
        gc.enable()


def test_callers_gradient_mode_does_not_matter() -> None:
    model, data = small(), batch()
    truth = la.Hessian(model, F.cross_entropy, data).dense()
    for mode in (torch.no_grad, torch.inference_mode):
        for cap in (None, 0):
            with mode():
                inside = la.Hessian(model, F.cross_entropy, data, memory_cap=cap).dense()
            assert close(inside.clone(), truth)


def test_a_compiled_model_is_unwrapped() -> None:
    model, data = small(), batch()
    compiled = torch.compile(model, backend="eager")
    H = la.Hessian(compiled, F.cross_entropy, data)
    assert H.layout.names[0] == "0.weight"
    assert close(H.dense(), la.Hessian(model, F.cross_entropy, data).dense())


@pytest.mark.parametrize("inside", [False, True], ids=["called outside", "called inside"])
def test_tensors_of_inference_mode(inside: bool) -> None:
    """No graph may keep them; their values are those of any others."""
    model, loss = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), nn.CrossEntropyLoss()
    with torch.inference_mode():
        X, labels = torch.arange(18.0, dtype=torch.float64).reshape(6, 3).cos(), torch.arange(6) % 2
    truth = la.trace(la.Hessian(model, loss, (torch.tensor(X.tolist()).double(), torch.arange(6) % 2)))
    with torch.inference_mode(inside):
        found = la.trace(la.Hessian(model, loss, (X, labels)))
        again = la.Hessian(model, loss, (X, labels), memory_cap=0).dense().trace()
        exact = la.trace(la.GGN(model, loss, (X, labels)))
    assert found.value == pytest.approx(truth.value, rel=1e-6)
    assert float(again) == pytest.approx(truth.value, rel=0.3) and exact.method == "per-example gradients"
