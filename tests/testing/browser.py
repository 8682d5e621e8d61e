"""Headless Chromium over a pipe of its DevTools protocol, for pages that tests open from files."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECONDS = 60.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
)


def chromium() -> str | None:
    """The program, or None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """A browser of its own, ended by ``end``."""

    def __init__(self) -> None:
        program = chromium()
        assert program, "no Chromium"
        self.folder = tempfile.mkdtemp(prefix="chromium-")
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Chromium reads descriptor 3 and writes 4; high numbers cannot be overwritten by these.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs_in, theirs_out)]
        redirected = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
        self.process = subprocess.Popen(
            ["bash", "-c", redirected, program, *FLAGS, f"--user-data-dir={self.folder}"],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self._in, self._out = ours_in, ours_out
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def end(self) -> None:
        """Ends the browser and removes its profile."""
        self.process.kill()
        self.process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of a command; events that arrive before it are kept."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
        raise AssertionError(method)

    def wait_for(self, method: str, session: str) -> None:
        """Waits for an event, unless it has been there already."""
        if any((e["method"], e.get("sessionId")) == (method, session) for e in self.events):
            return
        for message in self._messages():
            if (message.get("method"), message.get("sessionId")) == (method, session):
                return

    def open(self, page: Path, width: int, height: int = 900, is_dark: bool = False) -> "Tab":
        """A page from a file, loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", session, features=[scheme])
        self.events.clear()
        self.call("Page.navigate", session, url=page.as_uri())
        self.wait_for("Page.loadEventFired", session)
        return Tab(self, session)

    def _messages(self) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + SECONDS
        while True:
            while b"\0" not in self._buffer:
                left = deadline - time.monotonic()
                assert left > 0 and select.select([self._in], [], [], left)[0], "no answer"
                part = os.read(self._in, 1 << 20)
                assert part, "the browser ended"
                self._buffer += part
            line, _, self._buffer = self._buffer.partition(b"\0")
            message = json.loads(line)
            if "method" in message:
                self.events.append(message)
            yield message


class Tab:
    """A loaded page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self.session = session

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives on the page."""
        answer = self.browser.call(
            "Runtime.evaluate", self.session, expression=expression, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Presses and releases a key."""
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        more = {"text": text} if text else {}
        self.browser.call("Input.dispatchKeyEvent", self.session, type="keyDown", **pressed, **more)
        self.browser.call("Input.dispatchKeyEvent", self.session, type="keyUp", **pressed)

    def write(self, text: str) -> None:
        """Writes a text where the focus is."""
        self.browser.call("Input.insertText", self.session, text=text)

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened."""
        return [e["params"]["request"]["url"] for e in self._events("Network.requestWillBeSent")]

    def complaints(self) -> list[str]:
        """Errors, warnings and dialogs of the page since it was opened, and all that it wrote."""
        names = (
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
        return [json.dumps(e["params"]) for name in names for e in self._events(name)]

    def screenshot(self, is_whole: bool = False) -> bytes:
        """The page as PNG."""
        answer = self.browser.call(
            "Page.captureScreenshot", self.session, captureBeyondViewport=is_whole
        )
        return base64.b64decode(answer["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        answer = self.browser.call("Page.printToPDF", self.session, preferCSSPageSize=True)
        return base64.b64decode(answer["data"])

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.value("1")  # events before this answer are read
        mine = [e for e in self.browser.events if e.get("sessionId") == self.session]
        return [e for e in mine if e["method"] == method]
