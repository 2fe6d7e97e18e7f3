"""The HTML report in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from report import example
from tracetool.analysis import Analysis
from tracetool.report import html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")


def loaded(analysis: Analysis, folder: Path, script: str = "") -> tuple[str, list[str]]:
    """The document after its scripts have run, and what went to the console; `script` runs at the end, as a visitor's clicks."""
    assert BROWSER is not None
    page = folder / "report.html"
    text = html.render(analysis)
    page.write_text(text.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--window-size=1280,1000", "--virtual-time-budget=8000",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return run.stdout, [line for line in run.stderr.splitlines() if ":CONSOLE" in line]


def test_the_picture_is_drawn_and_no_error_is_logged(tmp_path: Path) -> None:
    dom, console = loaded(example.mail(), tmp_path)
    assert console == []
    assert "main-svg" in dom
    assert dom.count('class="point"') >= 5
    assert "✖ unsafe: missed-cow" in dom[dom.index("main-svg") : dom.index("<figcaption")]
    assert re.search(r'<p id="plot-status"[^>]* hidden=""', dom)
    assert len(re.findall(r'<article class="story"[^>]*hidden=""', dom)) == 3


def test_another_policy_another_axis_a_sort_and_a_filter_work(tmp_path: Path) -> None:
    clicks = """
      window.addEventListener("load", () => setTimeout(() => {
        document.querySelectorAll("input[name=policy]")[2].click();
        document.querySelector("input[name=spacing][value=steps]").click();
        document.querySelectorAll("#findings-table th button")[0].click();
        const filter = document.querySelector("input[data-filters]");
        filter.value = "CERTAIN";
        filter.dispatchEvent(new Event("input"));
      }, 3000));
    """
    rows = [example.finding(i, certainty="possible" if i == 3 else "certain") for i in (10, 9, 3)]
    dom, console = loaded(example.mail(findings=example.findings(*rows)), tmp_path, clicks)
    assert console == []
    shown = re.findall(r'<article class="story" data-story="(\d)"[^>]*?( hidden="")?>', dom)
    assert [number for number, hidden in shown if not hidden] == ["2"]
    assert "not to scale" in dom[dom.index("main-svg") : dom.index("<figcaption")]
    assert re.findall(r'<tr( hidden="")?>\s*<th scope="row">(F\d+)', dom) == [(' hidden=""', "F3"), ("", "F9"), ("", "F10")]
    assert "Showing 2 of 3 rows." in dom


def test_a_name_that_is_a_script_does_not_run(tmp_path: Path) -> None:
    nasty = "</script><script>document.title='it ran'</script><img src=x onerror=document.title='it ran'>"
    dom, console = loaded(example.hostile(nasty), tmp_path)
    assert console == []
    assert "main-svg" in dom
    assert "<title>it ran" not in dom
