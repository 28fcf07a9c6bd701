"""The pages in a real browser: no message on the console, scripts allowed by the policy, no sideways scrolling."""

from __future__ import annotations

import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=3000")  # fmt: skip
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")


def opened(page, tmp_path, width: int = 1280) -> tuple[str, str]:
    """(the page after its scripts ran, what the browser said)."""
    command = [
        str(CHROMIUM),
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},900",
        "--enable-logging=stderr",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_scripts_run_and_the_console_is_silent(built, tmp_path):
    page, said = opened(built.folder / "curvature-edge_of_stability.html", tmp_path)
    assert said == ""
    assert 'class="frame surface live"' in page and "<canvas" in page
    assert 'aria-current="true"' in page or 'aria-label="Switch to' in page
    page, said = opened(built.folder / "index.html", tmp_path)
    assert said == "" and "4 claims</output>" in page


def test_a_broken_policy_is_noticed(built, tmp_path):
    (tmp_path / "bad.html").write_text(built.html.replace('"use strict";', '"use strict"; ', 1))
    page, said = opened(tmp_path / "bad.html", tmp_path)
    assert "Content Security Policy" in said and 'aria-label="Switch to' not in page


@pytest.mark.parametrize("name", ["curvature-edge_of_stability.html", "index.html"])
def test_a_phone_needs_no_sideways_scrolling(built, tmp_path, name):
    """A frame of a phone's width, since a headless window is never that narrow; the frame reports its own overflow."""
    probe = "<script>addEventListener('load', () => { document.title = 'wide ' + (document.documentElement.scrollWidth - document.documentElement.clientWidth); parent.postMessage(document.title, '*'); });</script>"
    source = (built.folder / name).read_text()
    inside = source[: source.index("<meta http-equiv")] + source[source.index('<meta name="viewport"') :].replace(
        "</body>", probe + "</body>"
    )
    for extra, expected in (
        ("", "wide 0"),
        ('<div class="wide">' + "W" * 5 + "</div><style>.wide { width: 900px }</style>", "wide 5"),
    ):
        (tmp_path / "inside.html").write_text(inside.replace("</main>", extra + "</main>"))
        (tmp_path / "outside.html").write_text(
            "<!DOCTYPE html><p id=said></p><iframe src=inside.html width=390 height=800></iframe><script>addEventListener('message', (e) => { said.textContent = e.data; });</script>"
        )
        page, _ = opened(tmp_path / "outside.html", tmp_path)
        assert f'id="said">{expected}' in page
