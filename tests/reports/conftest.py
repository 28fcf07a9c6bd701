from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from lemmata.reports import Study, write_index, write_study

SAMPLES = Path(__file__).with_name("samples.py")


def load_samples() -> ModuleType:
    if "lemmata_report_samples" not in sys.modules:
        spec = importlib.util.spec_from_file_location("lemmata_report_samples", SAMPLES)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules["lemmata_report_samples"] = module
        spec.loader.exec_module(module)
    return sys.modules["lemmata_report_samples"]


@dataclass(frozen=True)
class Built:
    study: Study
    folder: Path
    html: str
    pdf: Path
    index: str


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    return load_samples()


@pytest.fixture(scope="session")
def built(samples, tmp_path_factory) -> Built:
    study = samples.study()
    folder = tmp_path_factory.mktemp("reports")
    html, pdf = write_study(study, folder)
    index = write_index([study], folder, note="0.2 false verdicts are expected by chance.")
    return Built(study, folder, html.read_text(), pdf, index.read_text())
