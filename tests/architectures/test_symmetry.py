"""Every symmetry that the catalogue declares holds to rounding for every element; nets without it are rejected."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

import lemmata.architectures
from lemmata.architectures import ARCHITECTURES, CNN, MLP, arguments

SYMMETRIC = [entry for entry in ARCHITECTURES if entry.symmetry is not None]
BY_NAME = {entry.name: entry for entry in ARCHITECTURES}


def norm(item):
    """Return the Euclidean norm of a tensor, or of nested tuples of tensors."""
    return torch.stack([t.norm() for t in tree_leaves(item) if t.is_floating_point()]).norm().item()


def worst_error(module, symmetry, inputs):
    """Return max over g of ‖f(g·x) − ρ(g) f(x)‖ / ‖f(x)‖."""
    with torch.no_grad():
        outputs = module(*arguments(inputs))
        errors = [
            norm(
                tree_map(
                    torch.sub,
                    module(*arguments(symmetry.act_on_inputs(g, inputs))),
                    symmetry.act_on_outputs(g, outputs),
                )
            )
            for g in symmetry.elements
        ]
    return torch.tensor(errors).max().item() / norm(outputs)  # NaN if one is


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("entry", SYMMETRIC, ids=lambda entry: entry.name)
def test_declared_symmetry(entry, dtype):
    inputs, _ = entry.sample(0, dtype, "cpu")
    # 32 roundings: sums over positions are added in another order, nothing else differs.
    assert worst_error(entry.build().to(dtype), entry.symmetry, inputs) <= 32 * torch.finfo(dtype).eps


@pytest.mark.parametrize("entry", SYMMETRIC, ids=lambda entry: entry.name)
def test_elements_act_as_a_group(entry):
    """The identity is there, elements differ, and each action is a bijection that keeps the norm."""
    inputs, _ = entry.sample(0, torch.float64, "cpu")
    images = [entry.symmetry.act_on_inputs(g, inputs) for g in entry.symmetry.elements]
    assert any(same(image, inputs) for image in images)
    assert all(not same(a, b) for i, a in enumerate(images) for b in images[:i])
    twice = [entry.symmetry.act_on_inputs(g, image) for g in entry.symmetry.elements for image in images]
    assert all(any(same(image, one) for one in images) for image in twice)


BROKEN = {
    "zero padding": ("cnn", lambda: BY_NAME["cnn-zeros"].build()),
    "stride 2": ("cnn", lambda: CNN([2, 3, 3], 3, stride=2, dtype=torch.float64, generator=seeded())),
    "a bias": ("deep-linear", lambda: MLP([3, 2], dtype=torch.float64, generator=seeded())),
}


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_symmetry_is_rejected(name):
    entry, build = BY_NAME[BROKEN[name][0]], BROKEN[name][1]
    inputs, _ = entry.sample(0, torch.float64, "cpu")
    assert worst_error(build(), entry.symmetry, inputs) > 1e-3


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_feature_map_commutes_with_shifts(kernel):
    """On the torus h_L(T x) = T h_L(x) for all 30 shifts, odd and even kernels; with zero padding only if kernel = 1."""
    x = torch.randn(2, 1, 6, 5, dtype=torch.float64, generator=seeded())
    for padding, commutes in (("circular", True), ("zeros", kernel == 1)):
        net = CNN([1, 4, 3], 2, kernel=kernel, padding=padding, dtype=torch.float64, generator=seeded())
        with torch.no_grad():
            map_ = net.features(x)
            errors = [
                (net.features(x.roll(g, (-2, -1))) - map_.roll(g, (-2, -1))).norm() / map_.norm()
                for g in ((down, right) for down in range(6) for right in range(5))
            ]
        worst = torch.stack(errors).max().item()  # NaN if one is
        assert worst <= 1e-14 if commutes else worst > 1e-2


def test_strided_map_commutes_with_multiples_of_the_stride():
    """Two layers of stride 2: a shift of the image by 4 is a shift of the map by 1, a shift by 2 is not."""
    net = CNN([1, 4, 3], 2, stride=2, dtype=torch.float64, generator=seeded())
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=seeded())
    with torch.no_grad():
        map_ = net.features(x)
        exact = (net.features(x.roll(4, -1)) - map_.roll(1, -1)).norm() / map_.norm()
        aliased = (net(x.roll(2, -1)) - net(x)).norm() / net(x).norm()
    assert exact <= 1e-14 and aliased > 1e-3


def test_translations_are_exactly_the_twenty():
    elements = BY_NAME["cnn"].symmetry.elements
    assert len(set(elements)) == 20 and (0, 0) in elements


FOLDER = Path(lemmata.architectures.__file__).parent
MODULES = ["lemmata.architectures", *(f"lemmata.architectures.{file.stem}" for file in FOLDER.glob("[!_]*.py"))]
MODULES += ["lemmata.architectures._entry", "lemmata.architectures._pieces"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    import doctest

    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0


def test_public_names():
    assert all(hasattr(lemmata.architectures, name) for name in lemmata.architectures.__all__)
    assert {entry.family for entry in ARCHITECTURES} <= set(lemmata.architectures.__all__)


@pytest.mark.parametrize(
    "build", [lambda: MLP([3, 4, 2]), lambda: MLP([3, 4, 2], init="orthogonal"), lambda: CNN([1, 2], classes=2)]
)
def test_a_network_is_built_on_the_default_device(build):
    """As a run with --device cuda does; the meta device stands in for any that is not the CPU."""
    with torch.device("meta"):
        assert {p.device.type for p in build().parameters()} == {"meta"}
    assert {p.device.type for p in build().parameters()} == {"cpu"}
