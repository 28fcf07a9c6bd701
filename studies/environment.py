"""The machine a run was made on: everything that can change a last digit, nothing that names a person or a path."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def capture(workers: int, device: str) -> dict[str, Any]:
    """Versions, hardware, threads, determinism flags and git state, as flat text."""
    import torch

    found = {
        "lemmata": version("lemmata"),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "scipy", "matplotlib", "typst", "scikit-learn")},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "device": device,
        "workers": f"{workers}, one torch thread each",
        "default dtype": "float64",
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
    }
    if device == "cuda":
        found["accelerator"] = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    commit = git_state()
    return found | ({"git": commit} if commit else {})


def version(package: str) -> str:
    """Installed version of a package, or “not installed”."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def python_version() -> str:
    """Python's version as a row's stamp."""
    return ".".join(map(str, sys.version_info[:3]))


def git_state() -> str:
    """Commit of the checkout the code runs from, and whether it was changed; "" outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        if not (here.parent / ".git").exists():
            return ""
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit[:12] + (" with uncommitted changes" if dirty else "")


def processor() -> str:
    """The processor's model name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
