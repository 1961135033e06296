"""Serve a bundle: `python serve.py BUNDLE [--host 127.0.0.1] [--port 8000] [--running 2] ...`.

uvicorn waits for ever for the header of a request, for the rest of a body that is refused, and for a client that does
not read its answer. The protocol below gives each of these a time, and the number of connections a limit.
"""

import argparse
import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from app import RETRY_SECONDS, create_app
from uploads import Limits

LINGER_SECONDS = 2.0  # in which a client may end a body that was refused, so that it reads why
KEEP_ALIVE_SECONDS = 5
_PIECE = 16 << 10
_LINE = 32  # least mean number of bytes between line ends of a chunked body: chunks of a few bytes cost most
_PHRASES = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}


class GuardedProtocol(H11Protocol):
    """A connection that no client can hold for ever."""

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._phase: str | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._chunked, self._size, self._lines = False, 0, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "busy", "too many connections; send the request again later")
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._is_crumbled(data):
            self._refuse(400, "chunks", "the chunks of the body are too small; send larger ones")
            return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._reading, self._writing):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(self._limits.header_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing:
            self._writing.cancel()

    def _watch(self) -> None:
        """Start a timer when the client should send something that the application does not wait for."""
        phase = None
        if self.conn.their_state is h11.IDLE:
            phase = "header"
        elif self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE:
            phase = "rest"
        if phase == self._phase:
            return
        self._phase = phase
        if self._reading:
            self._reading.cancel()
        if phase is not None:
            seconds = self._limits.header_seconds if phase == "header" else LINGER_SECONDS
            self._reading = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        if self._phase == "header" and self.conn.trailing_data[0]:
            self._refuse(408, "slow", "the header of the request did not arrive in time; send it faster")
        else:
            self.transport.close()

    def _is_crumbled(self, data: bytes) -> bool:
        """Whether a chunked body comes in chunks of a few bytes."""
        if self.conn.their_state is not h11.SEND_BODY:
            self._chunked, self._size, self._lines = b"chunked" in data[:_PIECE].lower(), 0, 0
        if self._chunked:
            self._size += len(data)
            self._lines += data.count(b"\r\n")
        return self._size > _PIECE and self._lines * _LINE > self._size

    def _refuse(self, status: int, reason: str, message: str) -> None:
        """Answer beside the application, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": {"reason": reason, "message": message}}).encode()
            retry = f"retry-after: {RETRY_SECONDS}\r\n" if status == 503 else ""
            head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: application/json\r\n{retry}"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()


def config(bundle: Path, limits: Limits, threads: int | None, host: str, port: int) -> uvicorn.Config:
    """The settings of uvicorn."""
    protocol: Callable[..., asyncio.Protocol] = partial(GuardedProtocol, limits=limits)
    return uvicorn.Config(
        create_app(bundle, limits, threads),
        host,
        port,
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=10,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="serve.py", description="Serve the ensemble in a bundle over HTTP.")
    parser.add_argument("bundle", type=Path, help="the folder of the bundle")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all networks")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, help="CPU threads of a forward pass; default: all cores")
    limits = parser.add_argument_group("limits", "see class Limits in uploads.py")
    for field in fields(Limits):
        limits.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    given = Limits(**{field.name: getattr(options, field.name) for field in fields(Limits)})
    uvicorn.Server(config(options.bundle, given, options.threads, options.host, options.port)).run()


if __name__ == "__main__":
    main()
