from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def schwarz() -> ModuleType:
    """The checker beside this file, loaded by path: the test tree is no package."""
    spec = importlib.util.spec_from_file_location("lemmata_tests_schwarz", Path(__file__).with_name("schwarz.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
