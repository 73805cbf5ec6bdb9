"""Headless Chromium by its debugging pipe: a page's requests, its errors, what it shows."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_TIMEOUT_S = 120
_LAUNCHER = """
import os, sys
read, write = (os.dup(os.dup(int(number))) for number in sys.argv[1:3])  # not 3
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """The path of an installed Chromium."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """A tab. Requests and errors are those since it was opened.

    Attributes:
        requests: the addresses that it asked for, the page itself included.
        errors: exceptions, console messages of level error or warning, and log entries, among
            them those of what the page's own policy has refused.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.errors: list[str] = []

    def attach(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = session["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def open(self, path: Path, width: int = 1280, height: int = 900, is_dark: bool = False) -> None:
        """Load a file at a width and colour scheme, and wait until it has loaded."""
        self.requests, self.errors, self._events = [], [], []
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.send("Emulation.setDeviceMetricsOverride", mobile=width < 600, **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())
        self.evaluate("document.fonts.ready.then(() => 0)")
        for event in self._events:
            self._note(event)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        answer = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._events.append(answer)

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + _TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError("chromium has closed its pipe, or says nothing")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: Mapping[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(str(parameters["exceptionDetails"]["text"]))
            case "Log.entryAdded":
                self.errors.append(str(parameters["entry"]["text"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning"):
                self.errors.append(str(parameters["args"]))


@contextmanager
def open_browser(profile: Path) -> Iterator[Page]:
    """A headless Chromium with a profile of its own, and a tab in it."""
    chromium = find_chromium()
    assert chromium is not None
    (their_read, our_write), (our_read, their_write) = os.pipe(), os.pipe()
    command = [
        chromium,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--hide-scrollbars", f"--user-data-dir={profile}", "--remote-debugging-pipe"),
    ]

    # Chromium reads its commands from descriptor 3 and writes to 4.
    launcher = [sys.executable, "-c", _LAUNCHER, str(their_read), str(their_write)]
    process = subprocess.Popen(
        [*launcher, *command], pass_fds=(their_read, their_write), stderr=subprocess.DEVNULL
    )
    os.close(their_read)
    os.close(their_write)
    try:
        page = Page(our_read, our_write)
        page.attach()
        yield page
        page._session = None
        page.send("Browser.close")
    finally:
        os.close(our_write)
        os.close(our_read)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
