"""A real browser: Debian's chromium, driven by playwright. Tests skip, with a reason, where one of them is missing.

No conftest.py: another one of that name would hide the one that all tests share.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import tracetool
from conftest import fixture_path
from tracetool.analysing import analyse
from tracetool.analysis import Analysis
from tracetool.report import details, html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Visit:
    """An open report: the page, and what went to the console, was thrown, or was asked of the network."""

    page: Any
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def quiet(self) -> bool:
        """Whether nothing was logged, thrown or asked for but the file itself."""
        return not self.console and not self.errors and len(self.requests) == 1

    def told(self) -> str:
        """What the selection says."""
        text: str = self.page.locator("#selected").inner_text()
        return text

    def findings(self) -> list[str]:
        """The ids of the findings that are shown, in order."""
        shown: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('tbody.finding')].filter(x => !x.hidden).map(x => x.dataset.id)"
        )
        return shown


@pytest.fixture(name="browser", scope="session")
def browser_fixture() -> Iterator[Any]:
    """One chromium for all tests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: make test-browser installs it")
    if BROWSER is None:
        pytest.skip("no chromium or google-chrome on PATH")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(name="visit")
def visit_fixture(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Visit]]:
    """Opens a document, as `visit(text, width=1280, script=True, **options of the context)`, and waits until its pictures are drawn."""
    contexts = []

    def opened(text: str, width: int = 1280, script: bool = True, **options: Any) -> Visit:
        file = tmp_path / "report.html"
        file.write_text(text, "utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=script, **options)
        contexts.append(context)
        page = context.new_page()
        seen = Visit(page)
        page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(file.as_uri())
        if script and 'id="model"' in text:
            page.wait_for_selector("html[data-drawn], html[data-failed]", timeout=60_000)
            assert page.locator("html").get_attribute("data-failed") is None
        return seen

    yield opened
    for context in contexts:
        context.close()


@functools.cache
def recorded(name: str) -> tuple[Analysis, details.Details]:
    """A fixture, analysed, with all details."""
    trace = tracetool.open(fixture_path(name))
    analysis = analyse(trace)
    return analysis, details.gather(trace, analysis)


@functools.cache
def document(name: str) -> str:
    """The report of a fixture."""
    analysis, found = recorded(name)
    return html.render(analysis, f"tracetool replay {name} --html report.html", details=found)
