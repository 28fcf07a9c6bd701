"""Same records, same bytes, wherever and whenever; and nothing is written where nothing changed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lemmata.reports import write_index, write_study
from lemmata.reports.compile import stem_of, write

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import samples
from lemmata.reports import write_index, write_study
study = samples.study()
write_study(study, sys.argv[2])
write_index([study], sys.argv[2], note="0.2 false verdicts are expected by chance.")
"""


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_same_bytes_in_another_folder_zone_locale_and_hash_seed(built, tmp_path):
    elsewhere = tmp_path / "another folder ü"
    settings = {
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "12345",
        "SOURCE_DATE_EPOCH": "99",
        "MPLBACKEND": "svg",
    }
    settings |= {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsvg.hashsalt: other\naxes.grid: True\n")
    here = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(here), str(elsewhere)], env=os.environ | settings, cwd=tmp_path, check=True
    )
    assert digests(elsewhere) == digests(built.folder)
    assert len(digests(elsewhere)) == 3


def test_other_records_give_other_bytes(built, tmp_path):
    write_study(replace(built.study, date="2026-11-24"), tmp_path)
    ours, theirs = digests(built.folder), digests(tmp_path)
    assert all(ours[name] != theirs[name] for name in theirs)


def test_nothing_is_written_when_nothing_changed(built):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in built.folder.iterdir()}
    write_study(built.study, built.folder)
    write_index([built.study], built.folder, note="0.2 false verdicts are expected by chance.")
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in built.folder.iterdir()} == before
    write_index([built.study], built.folder, note="0.2 false verdicts are expected by chance.")


def test_write_says_whether_it_wrote(tmp_path):
    path = tmp_path / "deep" / "file"
    assert write(path, b"a") and not write(path, b"a") and write(path, b"b")
    assert [one.name for one in path.parent.iterdir()] == ["file"]
    with pytest.raises(OSError):
        write(path / "below a file", b"")


def test_file_names_are_plain_and_never_shared():
    assert stem_of("curvature/edge_of_stability") == "curvature-edge_of_stability"
    names = ["a/b", "a-b", "../a/b", "a b", "", "index", "A" * 300, "\ud800"]
    stems = [stem_of(name) for name in names]
    assert len(set(stems)) == len(names)
    assert all(
        set(stem) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") and len(stem) < 100
        for stem in stems
    )


def test_reports_import_no_torch_and_no_sibling():
    program = "import sys, lemmata.reports; print([m for m in sys.modules if m.split('.')[0] in ('torch', 'matplotlib', 'typst')]); " \
        "print([m for m in sys.modules if m.startswith('lemmata.') and not m.startswith('lemmata.reports')])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]
    rendering = program.replace(
        "; print",
        "; from lemmata.reports import render; render(lambda ax: {'a': ax.plot([1])}, 'a', 'b', 'c'); print",
        1,
    )
    done = subprocess.run(
        [sys.executable, "-c", rendering.replace("'torch', ", "'torch', 'pyplot', ")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'torch" not in done.stdout and "pyplot" not in done.stdout and "'matplotlib'" in done.stdout
