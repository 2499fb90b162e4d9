"""A headless Chromium, spoken to over its debugging pipe; no library and no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
SECONDS = 120.0
"""A step that takes longer has failed."""


def executable() -> str:
    """The browser's path; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH (Debian: apt-get install chromium)")
    return found


class Page:
    """One tab.

    Args:
        profile: an empty folder for the browser's files.

    Attributes:
        events: everything that the browser reported.
    """

    def __init__(self, profile: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._count, self._session, self._rest = 0, "", b""
        theirs_in, self._out = _pipe()
        self._in, theirs_out = _pipe()

        def place() -> None:  # the browser reads commands from 3 and writes to 4
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        command = [executable(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, preexec_fn=place, pass_fds=(3, 4), stdout=quiet, stderr=quiet)
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command and its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda one: one.get("id") == message["id"])
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str) -> None:
        """Load a page to its end."""
        self.events.clear()
        self.send("Page.navigate", url=url)
        if not any(one.get("method") == "Page.loadEventFired" for one in self.events):
            self._until(lambda one: one.get("method") == "Page.loadEventFired")

    def run(self, script: str) -> Any:
        """The value of an expression; promises are awaited."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def size(self, width: int, height: int) -> None:
        """The window, in pixels."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name: str) -> None:
        """The system's colours: "light" or "dark"."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def shoot(self, file: Path) -> None:
        """A picture of the window."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def errors(self) -> list[str]:
        """What the console complains about, and exceptions that nobody caught."""
        wrong = [one for one in self.events if one.get("method") == "Runtime.exceptionThrown"]
        said = [one for one in self.events if one.get("method") == "Runtime.consoleAPICalled"]
        wrong += [one for one in said if one["params"]["type"] in ("error", "warning", "assert")]
        logged = [one for one in self.events if one.get("method") == "Log.entryAdded"]
        wrong += [one for one in logged if one["params"]["entry"]["level"] in ("error", "warning")]
        return [json.dumps(one["params"])[:400] for one in wrong]

    def requests(self) -> set[str]:
        """Addresses that were asked for."""
        sent = [one for one in self.events if one.get("method") == "Network.requestWillBeSent"]
        return {one["params"]["request"]["url"] for one in sent}

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            message, found, self._rest = self._rest.partition(b"\0")
            if not found:
                self._rest = message + self._read()
                continue
            one = json.loads(message)
            self.events.append(one)
            if wanted(one):
                return one
        raise AssertionError(f"the browser gave no answer in {SECONDS:g} s")

    def _read(self) -> bytes:
        read = os.read(self._in, 1 << 20)
        assert read, "the browser has ended"
        return read


def _pipe() -> tuple[int, int]:
    """Ends of a pipe whose numbers leave 3 and 4 free."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
