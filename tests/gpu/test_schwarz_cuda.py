"""The contract of the architectures on CUDA: the Schwarz test, the symmetries, and the same network as on the CPU.

Needs lemmata importable (installed, or a folder of links on PYTHONPATH) and nothing else beside torch and pytest.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

from lemmata.architectures import ARCHITECTURES, CNN, MLP, arguments

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA: torch.cuda.is_available() is False")

DTYPES = [torch.float32, torch.float64]


@pytest.fixture(scope="module")
def schwarz():
    """The checker of tests/architectures, loaded by path: the test tree is no package."""
    path = Path(__file__).parents[1] / "architectures" / "schwarz.py"
    spec = importlib.util.spec_from_file_location("lemmata_tests_schwarz", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def full_precision():
    """Convolve in float32, not in TF32 (torch's default on CUDA, 10 bits of mantissa), and put the setting back."""
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    yield
    torch.backends.cudnn.conv.fp32_precision = before


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("entry", ARCHITECTURES, ids=lambda entry: entry.name)
def test_schwarz(schwarz, entry, dtype):
    module = entry.build().to("cuda", dtype)
    findings = schwarz.check_module(module, entry.loss, *entry.sample(0, dtype, "cuda"))
    schwarz.expect(entry, findings)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("entry", ARCHITECTURES, ids=lambda entry: entry.name)
def test_equals_the_cpu(schwarz, entry, dtype):
    """Same parameters, batch, output and gradient as on the CPU, up to rounding."""
    cpu, cuda = entry.build().to(dtype), entry.build().to("cuda", dtype)
    here, there = entry.sample(0, dtype, "cpu"), entry.sample(0, dtype, "cuda")
    assert all(torch.equal(a, b.cpu()) for a, b in zip(tree_leaves(here), tree_leaves(there), strict=True))
    assert torch.equal(schwarz.flatten(cpu), schwarz.flatten(cuda).cpu())
    bound = schwarz.limit(dtype)
    with torch.no_grad():
        outputs = [schwarz.joined(net(*arguments(batch[0]))).cpu() for net, batch in ((cuda, there), (cpu, here))]
    assert schwarz.relative(*outputs) <= bound
    gradients = [
        schwarz.gradient(schwarz.objective(net, entry.loss, *batch), schwarz.flatten(net)).cpu()
        for net, batch in ((cuda, there), (cpu, here))
    ]
    assert schwarz.relative(*gradients) <= bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("entry", [e for e in ARCHITECTURES if e.symmetry], ids=lambda entry: entry.name)
def test_declared_symmetry(entry, dtype):
    module, (inputs, _) = entry.build().to("cuda", dtype), entry.sample(0, dtype, "cuda")
    with torch.no_grad():
        outputs = module(*arguments(inputs))
        for g in entry.symmetry.elements:
            moved = schwarz.joined(module(*arguments(entry.symmetry.act_on_inputs(g, inputs))))
            expected = schwarz.joined(entry.symmetry.act_on_outputs(g, outputs))
            assert schwarz.relative(moved, expected) <= 32 * torch.finfo(dtype).eps


def test_seed_means_the_same_network_on_both_devices():
    for build in (lambda **k: MLP([3, 4, 2], **k), lambda **k: CNN([1, 3], 2, **k)):
        nets = [build(device=device, generator=torch.Generator().manual_seed(0)) for device in ("cpu", "cuda")]
        for a, b in zip(*(net.parameters() for net in nets), strict=True):
            assert b.is_cuda and torch.equal(a, b.cpu())


def test_cuda_generator_is_refused():
    with pytest.raises(ValueError, match=r"cuda.*pass torch\.Generator"):
        MLP([3, 2], generator=torch.Generator("cuda").manual_seed(0))


def test_checker_rejects_layer_norm_on_cuda(schwarz):
    """The negative control on this device: reverse over forward of the fused layer norm is wrong."""
    at = torch.randn(15, dtype=torch.float64, generator=torch.Generator().manual_seed(7)).cuda()
    findings = schwarz.check_derivatives(lambda t: torch.nn.functional.layer_norm(t.view(3, 5), (5,)).sin().sum(), at)
    assert {"RF", "JJ"} <= {finding.check for finding in findings}, findings
