"""Headless Chromium for tests of pages: what it shows, what it complains of, what it asks for."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KEYS = {"Tab": 9, "Enter": 13, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowDown": 40}


class Browser:
    """Headless Chromium, spoken to over its debugging pipe; no driver and no port."""

    def __init__(self, program: str, profile: Path) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
            "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe"
        )
        shell = f'exec "$0" {flags} --user-data-dir="$1" about:blank 3<&{ends[0]} 4>&{ends[1]}'
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(
            ["bash", "-c", shell, program, str(profile)], pass_fds=ends, stdin=quiet, stdout=quiet, stderr=quiet
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self.read_end, self.write_end = ours_in, ours_out
        self.waiting = b""
        self.events: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)
        self.session: dict[str, str] = {}
        page = next(target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params} | self.session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def receive(self, timeout_s: float = 60) -> dict[str, Any]:
        while b"\0" not in self.waiting:
            ready, _, _ = select.select([self.read_end], [], [], timeout_s)
            assert ready, f"the browser said nothing for {timeout_s} s"
            part = os.read(self.read_end, 1 << 20)
            assert part, "the browser has gone"
            self.waiting += part
        message, _, self.waiting = self.waiting.partition(b"\0")
        return dict(json.loads(message))

    def open(self, page: Path, width: int, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, condition: str, timeout_s: float = 60) -> None:
        """Until a JavaScript expression is true."""
        asked = f"new Promise((done) => {{ const ask = () => ({condition}) ? done(true) : setTimeout(ask, 20); ask(); }})"
        within = f"Promise.race([{asked}, new Promise((done) => setTimeout(() => done(false), {1000 * timeout_s}))])"
        assert self.evaluate(within), f"still not so after {timeout_s} s: {condition}"

    def press(self, key: str) -> None:
        """A key without text, as a user presses it."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS.get(key, 0))

    def complaints(self) -> list[dict[str, Any]]:
        loud = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [event for event in self.events if event.get("method") in loud]

    def requests(self) -> list[str]:
        return [event["params"]["request"]["url"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close")
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.read_end)
        os.close(self.write_end)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()
