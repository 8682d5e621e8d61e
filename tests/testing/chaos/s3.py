"""An S3 server on loopback, and a proxy before it that counts, fails and kills.

The server is moto's: ``W2S_RAY_MOTO``, or ``moto_server`` beside the interpreter.
Signatures are not checked, so the proxy may pass requests on as they are.
"""

import http.client
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

MOTO = "W2S_RAY_MOTO"
BUCKET = "chaos"
START_SECONDS = 60.0
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length", "date"}
_CHANGES = ("PUT", "POST", "DELETE")
# As long as that of S3, so longer than many an object.
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code><Message>Please reduce '
    b"your request rate.</Message><RequestId>0123456789ABCDEF</RequestId>"
    b"<HostId>%b</HostId></Error>"
) % (b"x" * 76)


def moto_server() -> str | None:
    """The program, if there is one; one on the path may be of any version."""
    beside = Path(sys.executable).with_name("moto_server")
    named = os.environ.get(MOTO)
    return named or (str(beside) if beside.is_file() else None)


def address(port: int, name: str) -> str:
    """The address of a store in the bucket."""
    return f"s3://{BUCKET}/{name}?endpoint_override=127.0.0.1:{port}&scheme=http"


@contextmanager
def serving() -> Iterator[int]:
    """Moto with an empty bucket; yields its port."""
    program = moto_server()
    assert program is not None
    port = _free_port()
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + START_SECONDS
        while not _makes_bucket(port):
            assert time.monotonic() < end, "moto does not answer"
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(30)


class Proxy:
    """Passes requests on to a server.

    Attributes:
        port: where it listens.
        counts: of requests, by method, since ``calm``.
        failing: share of the requests that are answered with 503.
        outage: begin and end (``time.monotonic``) of a time in which connections are closed.
        before, after: called with the number of a change (from 1) before and after it is made.
    """

    def __init__(self, target: int) -> None:
        self.counts: Counter[str] = Counter()
        self._lock, self._target = Lock(), target
        self.calm()
        self._chance = random.Random(0)
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        Thread(target=self._server.serve_forever, daemon=True).start()

    def calm(self) -> None:
        """Disturbs nothing from now on."""
        self.failing, self.outage = 0.0, (0.0, 0.0)
        self.before: Callable[[int], None] = _nothing
        self.after: Callable[[int], None] = _nothing
        self.counts.clear()

    def changes(self) -> int:
        """Number of requests that change something."""
        return sum(self.counts[method] for method in _CHANGES)

    def end(self) -> None:
        self._server.shutdown()

    def count(self, method: str) -> int:
        """Counts a request; gives the number of changes so far."""
        with self._lock:
            self.counts[method] += 1
            return self.changes()

    def fails(self) -> bool:
        with self._lock:
            return self._chance.random() < self.failing

    def is_out(self) -> bool:
        return self.outage[0] <= time.monotonic() < self.outage[1]

    def forward(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any, bytes]:
        """Status, headers and body of the server's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=60)
        passed = {k: v for k, v in headers.items() if k.lower() not in _NOT_PASSED_ON}
        connection.request(method, path, body or None, passed)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), content


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a driver that was killed; other errors show as wrong answers."""


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        proxy, method = self.proxy, self.command
        body = self._body()
        number = proxy.count(method)
        if proxy.is_out():
            self.close_connection = True
            return
        if proxy.fails():
            self._send(503, [], SLOW_DOWN)
            return
        if method in _CHANGES:
            proxy.before(number)
        status, headers, content = proxy.forward(method, self.path, self.headers, body)
        if method in _CHANGES:
            proxy.after(number)
        self._send(status, headers, content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            pass  # http.server has answered it
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _send(self, status: int, headers: Any, content: bytes) -> None:
        with suppress(OSError):  # the driver is dead
            self.send_response_only(status)
            length = str(len(content))
            for name, value in headers:
                if name.lower() == "content-length":
                    length = value  # of HEAD: that of the object
                elif name.lower() not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            self.send_header(
                "Content-Length", length if self.command == "HEAD" else str(len(content))
            )
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _nothing(number: int) -> None:
    pass


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _makes_bucket(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("PUT", f"/{BUCKET}", headers={"Host": f"127.0.0.1:{port}"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
