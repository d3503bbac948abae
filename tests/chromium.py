"""Headless Chromium for tests of pages, by Playwright: what it shows, what it complains of, what it asks for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # conftest.py imports this file everywhere, on GPU machines without Playwright too
    from playwright.sync_api import Browser as Program
    from playwright.sync_api import Page

PHONE = 500
"""Narrower pages are shown as on a phone."""


class Browser:
    """One page at a time; each `open` starts from a clean profile."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._complaints: list[str] = []
        self._requests: list[str] = []
        self.page: Page

    def open(self, page: Path, width: int, dark: bool = False) -> None:
        """Load a file and wait until it is whole."""
        self.close()
        self._complaints, self._requests = [], []
        context = self._program.new_context(
            viewport={"width": width, "height": 844}, is_mobile=width < PHONE, color_scheme="dark" if dark else "light"
        )
        context.on("request", lambda request: self._requests.append(request.url))
        context.on("console", lambda message: self._complaints.append(message.text))
        context.on("weberror", lambda error: self._complaints.append(str(error.error)))
        self.page = context.new_page()
        self.page.goto(page.as_uri())

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression, awaited."""
        return self.page.evaluate(expression)

    def wait(self, condition: str, timeout_s: float = 60) -> None:
        """Until a JavaScript expression is true."""
        self.page.wait_for_function(f"() => ({condition})", timeout=1000 * timeout_s)

    def press(self, key: str) -> None:
        """A key, as a user presses it."""
        self.page.keyboard.press(key)

    def complaints(self) -> list[str]:
        """Everything on the console, and every exception nobody caught."""
        return self._complaints

    def requests(self) -> list[str]:
        """Addresses the page asked for, its own first."""
        return self._requests

    def close(self) -> None:
        """Leave the page."""
        for context in self._program.contexts:
            context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program)
        yield Browser(opened)
        opened.close()
