"""A server on the loopback interface that answers like Hugging Face: repositories, and another host for contents."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" * 6 + "0000"


@dataclass
class Hub:
    """The server's files and misdeeds.

    Attributes:
        files: contents by `owner/name/file`.
        renamed: new names of repositories by their old ones, answered by a relative redirect.
        answers: for these files a code and an error code, in turn, before the file itself; the last one stays if it is
            followed by nothing and `for_ever`.
        for_ever: whether the last of `answers` stays.
        breaks: transfers that end early, each after so many bytes.
        slow: seconds before the content begins.
        ranges: whether contents can be sent from a place on.
        digests: whether the server states SHA-256 and size.
        spoilt: whether one byte of each content is wrong.
        asked: method, path and headers of all requests.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)
    for_ever: bool = False
    breaks: list[int] = field(default_factory=list)
    slow: float = 0.0
    ranges: bool = True
    digests: bool = True
    spoilt: bool = False
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self) -> Counter[str]:
        """Requests by method and kind of address: `HEAD resolve`, `GET cdn`, ..."""
        return Counter(f"{method} {'cdn' if path.startswith('/cdn/') else 'resolve'}" for method, path, _ in self.asked)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing: the tests look at `asked`."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            hub.asked.append((self.command, self.path, {name.lower(): text for name, text in self.headers.items()}))
            if hub.answers:
                code, name, more = hub.answers[0] if hub.for_ever and len(hub.answers) == 1 else hub.answers.pop(0)
                self._empty(code, ({"X-Error-Code": name} if name else {}) | more)
            elif self.path.startswith("/cdn/"):
                self._content(hub.files[self.path.removeprefix("/cdn/")], body)
            else:
                self._resolve()

        def _resolve(self) -> None:
            repository, _, rest = self.path[1:].partition("/resolve/")
            revision, _, file = rest.partition("/")
            if repository in hub.renamed:
                self._empty(307, {"Location": f"/{hub.renamed[repository]}/resolve/{rest}"})
            elif revision not in ("main", COMMIT) or f"{repository}/{file}" not in hub.files:
                self._empty(404, {"X-Error-Code": "EntryNotFound"})
            else:
                content = hub.files[f"{repository}/{file}"]
                stated = {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'}
                stated |= {"X-Linked-Size": str(len(content))}
                other = f"http://localhost:{hub.port}/cdn/{repository}/{file}"
                self._empty(302, {"Location": other, "X-Repo-Commit": COMMIT} | (stated if hub.digests else {}))

        def _content(self, content: bytes, body: bool) -> None:
            begin = 0
            if (wanted := self.headers.get("Range")) and hub.ranges:
                begin = int(wanted.removeprefix("bytes=").rstrip("-"))
                if begin >= len(content):
                    self._empty(416, {})
                    return
            if hub.spoilt:
                content = content[:-1] + bytes([content[-1] ^ 1])
            rest = content[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(rest)))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if not body:
                return
            time.sleep(hub.slow)
            if hub.breaks:
                rest = rest[: hub.breaks.pop(0)]
                self.close_connection = True
            try:
                self.wfile.write(rest)
            except OSError:  # the client has given up
                self.close_connection = True

        def _empty(self, code: int, headers: dict[str, str]) -> None:
            self.send_response(code)
            for name, text in (headers | {"Content-Length": "0"}).items():
                self.send_header(name, text)
            self.end_headers()

    return Handler


@contextmanager
def local_hub() -> Iterator[Hub]:
    """Serve during the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
