"""The audit passes on right operators, and fails, naming the culprit, on wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.utils.data import DataLoader, TensorDataset

import lemmata.analysis as la
from lemmata.analysis.audit import Audit, Check, audit
from lemmata.analysis.differences import Ladder
from lemmata.analysis.errors import OperandError
from lemmata.architectures import ARCHITECTURES, Architecture
from lemmata.studies.claim import numerics

CHECKS = [*"products symmetry linearity determinism data gradient definition".split(), "batch split", "precision"]
GOOD = "mlp mlp-relu deep-linear cnn resnet-frozen lstm attention encoder-post-norm gpt message-passing-max vae".split()
ENTRIES = [entry for entry in ARCHITECTURES if entry.name in GOOD]
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


def net(*middle: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), *middle, nn.Linear(5, 3)).to(dtype)


class CubeFunction(torch.autograd.Function):
    """x³, whose gradient is right; ``factor`` other than 1 makes the gradient's gradient wrong."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x**3

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        first = 3 * x**2
        return slope * (first * ctx.factor + (first * (1 - ctx.factor)).detach()), None


class Cube(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return CubeFunction.apply(x, self.factor)


class WrongSlopeFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 1.02 * slope * ctx.saved_tensors[0].cos()


class OnceFunction(torch.autograd.Function):
    """The first derivative is right, the second is lost without a word."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope * ctx.saved_tensors[0].detach().cos()


class Apply(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x)


class Spread(nn.Module):
    """Uses an operation whose second derivative PyTorch lacks."""

    def forward(self, x: Tensor) -> Tensor:
        return x * F.pdist(x).mean()


class OwnDropout(nn.Module):
    """Dropout in train mode with a generator of its own, which the operators cannot see."""

    def __init__(self) -> None:
        super().__init__()
        self.draws = iter(torch.rand(10**4, generator=torch.Generator().manual_seed(0)).tolist())

    def __deepcopy__(self, memo: Any) -> OwnDropout:
        return self

    def forward(self, x: Tensor) -> Tensor:
        keep = torch.tensor([float(next(self.draws) < 0.7) for _ in range(x.shape[1])], dtype=x.dtype)
        return x * keep / 0.7


class Centred(nn.Module):
    """Looks at the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Far(nn.Module):
    """Loses digits: right in float64, not in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 1e6) - 1e6


class Asymmetric(la.Operator):
    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.layout = matrix, la.Layout(("x",), ((len(matrix),),))
        self.dtype, self.device = matrix.dtype, matrix.device

    def _multiply(self, vectors: Tensor) -> Tensor:
        return vectors @ self.matrix.T

    def plan(self, k: int = 1) -> la.Plan:
        return la.Plan("", k, 0.0, 0)


class Affine(Asymmetric):
    def _multiply(self, vectors: Tensor) -> Tensor:
        return vectors @ self.matrix + 1


class Noisy(Asymmetric):
    count = 0

    def _multiply(self, vectors: Tensor) -> Tensor:
        self.count += 1
        return vectors @ self.matrix * (1 + 1e-15 * self.count)


def failed(found: Audit) -> set[str]:
    return {check.name for check in found.checks if check.verdict == "failed"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_hessians_of_the_lab_pass(entry: Architecture) -> None:
    with numerics():
        module = entry.build().double()
        found = audit(la.Hessian(module, entry.loss, [entry.sample(0, torch.float64, "cpu")], batch_stats="frozen"))
    assert found.passed and not found.culprits, found
    assert [check.name for check in found.checks] == CHECKS
    assert found["definition"].verdict == found["gradient"].verdict == "passed"
    if entry.smooth:
        assert (
            "order" in found["definition"].note and abs(float(found["definition"].note.split()[1].strip(":")) - 2) < 0.4
        )


@pytest.mark.parametrize("cap", [None, 0], ids=["retained", "fresh"])
@pytest.mark.parametrize("kind", [la.Hessian, la.GGN, la.Fisher, la.EmpiricalFisher])
@pytest.mark.parametrize(
    "loss",
    [nn.MSELoss(), nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 0.5]).double()), F.binary_cross_entropy_with_logits],
)
def test_every_matrix_passes(kind: Any, loss: Any, cap: int | None) -> None:
    target = {nn.MSELoss: Y, nn.CrossEntropyLoss: LABELS}.get(type(loss), (Y > 0).double())
    found = audit(kind(net(), loss, [(X[:4], target[:4]), (X[4:], target[4:])], memory_cap=cap))
    assert found.passed and all(check.verdict == "passed" for check in found.checks), found


@pytest.mark.parametrize("kind", [la.GGN, la.Fisher, la.EmpiricalFisher])
def test_a_matrix_that_is_not_the_one_it_claims_to_be_fails(kind: Any) -> None:
    right = kind(net(), nn.CrossEntropyLoss(), (X, LABELS))
    right._start.engine.divisor *= 0.99
    found = audit(right)
    assert "definition" in failed(found) and found["definition"].measured == pytest.approx(0.0101, rel=0.01)


def test_float32_passes_and_batches_of_a_loader() -> None:
    loader = DataLoader(TensorDataset(X.float(), LABELS), batch_size=4)
    model = net(nn.LayerNorm(5), dtype=torch.float32)
    H = la.Hessian(model, nn.CrossEntropyLoss(), loader)
    before = torch.get_rng_state()  # a pass over a loader draws from the global generator
    state = {key: part.clone() for key, part in model.state_dict().items()}
    found = audit(H)
    assert found.passed and "float32" in found["precision"].note and found["precision"].measured > 1e-9
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(part, state[key]) for key, part in model.state_dict().items())


def test_objective_without_a_module() -> None:
    found = audit(la.Hessian.of(lambda p: (p["x"] ** 4).sum(), {"x": torch.tensor([1.0, 2.0]).double()}))
    assert found.passed and found["batch split"].verdict == "skipped"


@pytest.mark.parametrize("cap", [None, 0], ids=["retained", "fresh"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_wrong_double_backward(dtype: torch.dtype, cap: int | None) -> None:
    data = X.to(dtype), Y.to(dtype)
    if cap is None:
        good = audit(la.Hessian(net(Cube(1.0), dtype=dtype), nn.MSELoss(), data, memory_cap=cap))
        assert good.passed, good
        found = audit(la.Hessian(net(Cube(0.9), dtype=dtype), nn.MSELoss(), data, memory_cap=cap))
        assert "definition" in failed(found) and found.culprits == ("2 (Cube)",), found
        assert "gradient" not in failed(found)
    else:  # forward mode over an autograd.Function without a jvp
        found = audit(la.Hessian(net(Cube(0.9), dtype=dtype), nn.MSELoss(), data, memory_cap=cap))
        assert "products" in failed(found) and found.culprits == ("2 (Cube)",), found


def test_wrong_double_backward_deep_in_a_container() -> None:
    block = nn.Sequential(nn.Linear(5, 5), nn.Sequential(nn.ReLU(), Cube(1.1)))
    found = audit(la.Hessian(net(block), nn.MSELoss(), (X, Y)))
    assert found.culprits == ("2.1.1 (Cube)",), found


def test_wrong_double_backward_in_the_code_of_a_container_or_in_a_closure() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return CubeFunction.apply(self.fc(x), 0.8)

    model = net(Block())
    assert audit(la.Hessian(model, nn.MSELoss(), (X, Y))).culprits == ("2 (Block)",)
    objective = la.Hessian.of(lambda p: functional_call(model, p, (X,)).square().mean(), dict(model.named_parameters()))
    assert audit(objective).culprits == ("2 (Block)",)


def test_wrong_double_backward_in_the_loss() -> None:
    def bent(output: Tensor, target: Tensor) -> Tensor:
        return CubeFunction.apply(output - target, 0.5).mean()

    assert audit(la.Hessian(net(), bent, (X, Y))).culprits == ("loss bent",)


def test_wrong_gradient() -> None:
    found = audit(la.Hessian(net(Apply(WrongSlopeFunction)), nn.MSELoss(), (X, Y)))
    assert "gradient" in failed(found) and found["gradient"].culprit == "2 (Apply)"


def test_reverse_over_forward_of_layer_norm_is_caught() -> None:
    class Directional(nn.Module):
        """The derivative of F.layer_norm along the input: reverse mode over it is wrong in PyTorch."""

        def forward(self, x: Tensor) -> Tensor:
            return jvp(lambda z: F.layer_norm(z, (5,)), (x,), (x.sin(),))[1]

    found = audit(la.Hessian(net(Directional()), nn.MSELoss(), (X, Y)))
    if not found.passed:  # a PyTorch that has mended it passes
        assert found["gradient"].culprit == "2 (Directional)", found


@pytest.mark.parametrize("layer", [Apply(OnceFunction), Spread()])
def test_no_second_derivative(layer: nn.Module) -> None:
    found = audit(la.Hessian(net(layer), nn.MSELoss(), (X, Y)))
    assert failed(found) & {"products", "definition"} and found.culprits == (f"2 ({type(layer).__name__})",), found


@pytest.mark.parametrize("kind", [la.Hessian, la.GGN])
def test_dropout_in_train_mode(kind: Any) -> None:
    found = audit(kind(net(OwnDropout()), nn.MSELoss(), (X, Y)))
    assert "data" in failed(found) and found["data"].culprit == "2 (OwnDropout)", found


def test_shuffled_data() -> None:
    class Shuffled:
        generator = torch.Generator().manual_seed(0)

        def __iter__(self) -> Any:
            chosen = torch.randperm(6, generator=self.generator)[:4]
            return iter([(X[chosen], Y[chosen])])

    for cap in (None, 0):
        found = audit(la.Hessian(net(), nn.MSELoss(), Shuffled(), memory_cap=cap))
        assert not found.passed and "data (other batches on every pass)" in found.culprits, found
    assert "data" in failed(found)


def test_data_changed_in_place() -> None:
    x, y = X.clone(), Y.clone()
    H = la.Hessian(net(), nn.MSELoss(), (x, y))
    assert audit(H).passed
    y += 1
    found = audit(H)
    assert "data" in failed(found) and found["data"].culprit == "data (changed since construction)", found
    x += 1  # the kept graph holds a copy of the inputs, so that products stay what they were
    found = audit(H)
    assert "data" in failed(found) and "products" not in failed(found), found
    assert all(name.startswith("data") for name in found.culprits), found


def test_examples_that_see_each_other() -> None:
    found = audit(la.Hessian(net(Centred()), nn.MSELoss(), (X, Y)))
    assert failed(found) == {"batch split"} and found.culprits == ("2 (Centred)",), found


def test_a_loss_that_is_no_mean() -> None:
    def total(output: Tensor, target: Tensor) -> Tensor:
        return ((output - target) ** 2).sum()

    found = audit(la.Hessian(net(), total, (X, Y)))
    assert failed(found) == {"batch split"} and found.culprits == ("loss total",)
    assert audit(la.Hessian(net(), total, (X, Y), reduction="sum")).passed


def test_lost_digits() -> None:
    found = audit(la.Hessian(net(Far()), nn.MSELoss(), (X, Y)))
    assert failed(found) == {"precision"} and found.culprits == ("2 (Far)",), found


def test_operators_that_are_no_symmetric_matrix() -> None:
    matrix = torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    symmetric = matrix + matrix.T
    assert audit(Asymmetric(symmetric)).passed
    assert failed(audit(Asymmetric(matrix))) == {"symmetry"}
    assert failed(audit(Asymmetric(symmetric + 1e-6 * matrix))) == {"symmetry"}
    assert failed(audit(Affine(symmetric))) == {"symmetry", "linearity"}
    assert failed(audit(Noisy(symmetric))) == {"determinism"}
    assert failed(audit(Asymmetric(symmetric * float("nan")))) >= {"products", "symmetry"}
    assert audit(Asymmetric(matrix)).culprits[0].startswith("Asymmetric(8 × 8")


def test_sampled_fisher_has_no_definition_to_compare_with() -> None:
    assert audit(la.Fisher(net(), nn.MSELoss(), (X, Y), samples=3))["definition"].verdict == "skipped"


def test_no_operator() -> None:
    with pytest.raises(OperandError, match="la.Hessian"):
        audit(torch.eye(2))  # type: ignore[arg-type]


def test_table_and_record() -> None:
    found = audit(la.Hessian(net(Cube(0.9)), nn.MSELoss(), (X, Y)))
    lines = repr(found).splitlines()
    assert lines[0].endswith("failed") and len(lines) == 2 + len(CHECKS)
    assert any(line.startswith("definition") and "failed" in line and "2 (Cube)" in line for line in lines)
    assert Audit.from_dict(found.to_dict()) == found


def test_ladder() -> None:
    steps = tuple(10.0**-j for j in range(6))
    assert Ladder(steps, (1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)).order == pytest.approx(1)
    assert Ladder(steps, (0.1,) * 6).order is None
    assert Ladder(steps, (0.1, float("nan"), 0.1, 0.1, 0.1, 0.1)).best != 0
    assert Check("x", "passed").culprit is None
