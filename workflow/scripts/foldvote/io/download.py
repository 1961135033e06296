"""Download of a file over HTTP: resumed, retried, compared by its SHA-256, and whole or not there at all."""

import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from itertools import count
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from foldvote.errors import UserError
from foldvote.io.files import sha256_file, whole_file

_BLOCK = 1 << 20
_LINE_SECONDS = 5.0  # between two lines of progress


@dataclass(frozen=True)
class Patience:
    """How long a server may take.

    Attributes:
        timeout: seconds without any answer.
        tries: attempts in a row that bring nothing.
        pause: seconds before the second attempt, doubled before each further one.
        window: seconds in which at least `least` bytes must arrive.
        least: bytes.
    """

    timeout: float = 20.0
    tries: int = 5
    pause: float = 1.0
    window: float = 60.0
    least: int = 1 << 16


PATIENT = Patience()


@dataclass(frozen=True)
class Remote:
    """What a server says about a file; None for what it does not say.

    Attributes:
        size: bytes.
        sha256: SHA-256 of its content, as Hugging Face states it for large files, or the beginning of it.
        revision: the commit of its repository.
    """

    size: int | None
    sha256: str | None
    revision: str | None


class NotOnServer(UserError):
    """The server has no such file."""


class _Broken(Exception):
    """The transfer ended or stalled before the end of the file."""


# Failures after which another attempt may succeed, and those of them after which it will not.
_MAY_PASS = (URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError, _Broken)
_FINAL = (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)


def describe(url: str, headers: Mapping[str, str], patience: Patience = PATIENT) -> Remote:
    """Ask for the size, digest and commit of a file, without its content.

    Args:
        url: the file.
        headers: of the request, such as Authorization; that one goes to no other host.
        patience: how long the server may take.

    Raises:
        NotOnServer: if there is no such file.
        UserError: if the server refuses or does not answer.
    """
    for failures in count(1):
        try:
            told = _headers(url, headers, patience)
            break
        except _MAY_PASS as error:
            time.sleep(_wait(url, error, failures, patience))
    sizes = [message.get(name) for name in ("X-Linked-Size", "Content-Length") for message in reversed(told)]
    digests = [(message.get("X-Linked-Etag") or "").removeprefix("W/").strip('"') for message in told]
    return Remote(
        next((int(size) for size in sizes if size and size.isdigit()), None),
        next((text for text in digests if re.fullmatch(r"[0-9a-f]{64}", text)), None),
        next((text for text in (message.get("X-Repo-Commit") for message in told) if text), None),
    )


def download(
    url: str,
    path: Path,
    expected: str,
    headers: Mapping[str, str],
    log: Callable[[str], None],
    patience: Patience = PATIENT,
) -> str:
    """Download a file. What has arrived is kept and resumed, also by a later call, where its digest is known.

    Args:
        url: the file.
        path: where to put it; it appears when it is whole and its digest is right.
        expected: its SHA-256, or the beginning of it; empty where it is not known.
        headers: as for `describe`.
        log: called with a line every few seconds.
        patience: how long the server may take.

    Returns:
        Its SHA-256.

    Raises:
        NotOnServer: if there is no such file.
        UserError: if the server refuses, does not answer or sends something else, or the disk is full.
    """
    part = path.with_name(f".{path.name}.{expected[:12] or 'unknown'}.part")
    failures = most = 0
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if not expected:
            part.unlink(missing_ok=True)
        while True:
            try:
                _receive(url, part, headers, log, patience, path.name)
                break
            except _MAY_PASS as error:
                size = part.stat().st_size if part.is_file() else 0
                failures, most = (1, size) if size > most else (failures + 1, most)
                time.sleep(_wait(url, error, failures, patience))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); free space, or mend it") from error
    digest = sha256_file(part)
    if not digest.startswith(expected):
        part.unlink()
        raise UserError(
            f"{url}: arrived with the SHA-256 {digest[:12]}..., not {expected[:12]}... as expected, and was deleted; "
            "run the command again, and if it stays so, ask who runs the server or proxy"
        )
    with whole_file(path) as temporary:
        part.replace(temporary)
    return digest


def _receive(
    url: str, part: Path, headers: Mapping[str, str], log: Callable[[str], None], patience: Patience, called: str
) -> None:
    """Append what is missing of a file to its part; raises _Broken if the transfer ends early."""
    begun = part.stat().st_size if part.is_file() else 0
    ranged = dict(headers) | ({"Range": f"bytes={begun}-"} if begun else {})
    try:
        with _opened(url, ranged, "GET", patience, _Redirects()) as answer:
            if begun and answer.status != 206:  # it sends the whole file again
                begun = 0
            length = answer.headers.get("Content-Length")
            total = begun + int(length) if length and length.isdigit() else None
            if total is not None and shutil.disk_usage(part.parent).free < total - begun:
                raise UserError(f"{part.parent}: too little space for the {_mb(total)} of {called}; free some")
            with part.open("ab" if begun else "wb") as file:
                _copy(answer, file, begun, total, lambda text: log(f"{called}: {text}"), patience)
    except HTTPError as error:
        if error.code == 416 and begun:  # nothing is missing, or the part is not of this file: its digest tells
            return
        raise


def _copy(
    answer: HTTPResponse,
    file: IO[bytes],
    begun: int,
    total: int | None,
    log: Callable[[str], None],
    patience: Patience,
) -> None:
    size, checked, counted, told = begun, time.monotonic(), begun, time.monotonic()
    while block := answer.read1(_BLOCK):
        file.write(block)
        size, now = size + len(block), time.monotonic()
        if now - told > _LINE_SECONDS:
            log(f"{_mb(size)} of {_mb(total) if total is not None else 'an unknown size'}")
            told = now
        if now - checked > patience.window:
            if size - counted < patience.least:
                raise _Broken(f"only {size - counted} bytes in {patience.window:g} seconds")
            checked, counted = now, size
    if total is not None and size < total:
        raise _Broken(f"it ended after {size:,} of {total:,} bytes")


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, keeps their headers, and gives the user's token to no other host."""

    def __init__(self) -> None:
        self.passed: list[Message] = []

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        """The request that follows a redirect."""
        self.passed.append(headers)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if request is not None:
            request.method = req.get_method()
            if urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
                request.remove_header("Authorization")
        return request


def _opened(
    url: str, headers: Mapping[str, str], method: str, patience: Patience, redirects: _Redirects
) -> HTTPResponse:
    """The answer to a request."""
    request = Request(url, headers={"User-Agent": "foldvote", **headers}, method=method)
    return build_opener(redirects).open(request, timeout=patience.timeout)


def _headers(url: str, headers: Mapping[str, str], patience: Patience) -> list[Message]:
    """The headers of the answer to HEAD, after those of the redirects before it."""
    redirects = _Redirects()
    try:
        with _opened(url, headers, "HEAD", patience, redirects) as answer:
            return [*redirects.passed, answer.headers]
    except HTTPError as error:
        # Hosts that redirects lead to may take GET only.
        if error.code in (405, 501) or (error.code == 403 and redirects.passed):
            return redirects.passed
        raise


def _wait(url: str, error: Exception, failures: int, patience: Patience) -> float:
    """Seconds until the next attempt, or a UserError of one line where a failure is final.

    Args:
        url: the file.
        error: the failure, one of _MAY_PASS.
        failures: failures in a row.
        patience: how many are allowed.
    """
    last, pause = failures >= patience.tries, min(patience.pause * 2.0 ** (failures - 1), 60.0)
    if not isinstance(error, HTTPError):
        cause = error.reason if isinstance(error, URLError) else error
        if last or isinstance(cause, _FINAL):
            why = " ".join(str(cause).split()) or type(cause).__name__
            raise UserError(f"{url}: no answer, or not all of it ({why}); run the command again with a network")
        return pause
    told = " ".join([str(error.code), *(error.headers.get("X-Error-Code") or str(error.reason)).split()])
    if error.code in (404, 410):
        raise NotOnServer(f"{url}: the server has no such file ({told})")
    if error.code in (401, 403):
        raise UserError(
            f"{url}: the server wants an account that may read it ({told}); accept the terms on the page of this "
            "repository, and set the variable HF_TOKEN to a token of yours"
        )
    if last or not (error.code >= 500 or error.code in (408, 429)):
        raise UserError(f"{url}: the server answers {told}; try again later")
    after = error.headers.get("Retry-After") or ""
    return min(float(after), 60.0) if after.isdigit() else pause


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
