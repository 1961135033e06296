"""Reading the images of one request into memory under limits; no temporary files.

The limits hold while the body comes in, whatever Content-Length says: reading stops at the first byte too many.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_NAME = 255  # most characters of a file name that are kept


@dataclass(frozen=True)
class Limits:
    """What the service takes.

    Attributes:
        request_bytes: largest body of a request.
        file_bytes: largest file.
        images: most images in one request; also the most in one forward pass.
        held_bytes: most bytes of all uploads together that are in memory; further requests are sent away with 503.
        running: requests that are decoded and predicted at once.
        waiting: requests that wait for this with all their images received; further ones are sent away with 503.
        body_seconds: time in which a body must have arrived.
        header_seconds: time in which a header must have arrived, and a client must have taken its answer.
        connections: open connections; further ones are sent away with 503.
    """

    request_bytes: int = 32 << 20
    file_bytes: int = 16 << 20
    images: int = 16
    held_bytes: int = 256 << 20
    running: int = 2
    waiting: int = 32
    body_seconds: float = 20.0
    header_seconds: float = 10.0
    connections: int = 200


@dataclass
class Upload:
    """One file.

    Attributes:
        name: as the client calls it, which is only told back; None for a body that is the image itself.
        data: its bytes.
    """

    name: str | None
    data: bytearray = field(default_factory=bytearray)


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of the answer.
        reason: a code.
        message: one line.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


class Memory:
    """The bytes of all uploads that are in memory."""

    def __init__(self, most: int) -> None:
        self.held, self._most = 0, most

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one request holds, until it is answered."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held -= share.held

    def take(self, count: int) -> None:
        """Count some bytes.

        Raises:
            Refused: if there are too many.
        """
        if self.held + count > self._most:
            raise Refused(503, "busy", "too many uploads at once; send the request again later")
        self.held += count


class Share:
    """The bytes that one request holds."""

    def __init__(self, memory: Memory) -> None:
        self.held, self._memory = 0, memory

    def take(self, count: int) -> None:
        """Count some bytes."""
        self._memory.take(count)
        self.held += count


async def read_uploads(request: Request, limits: Limits, share: Share) -> list[Upload]:
    """Read the body of a request.

    Args:
        request: whose body is one image (`image/*`, `application/octet-stream`) or a form with files.
        limits: what is taken.
        share: counts the bytes.

    Returns:
        At least one file, in the order of the request.

    Raises:
        Refused: if it is not taken.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "encoding", "the body has a Content-Encoding; send it as it is")
    if kind != b"multipart/form-data" and not kind.startswith(b"image/") and kind != b"application/octet-stream":
        raise Refused(
            415, "media_type", "the Content-Type must be multipart/form-data, image/* or application/octet-stream"
        )
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > limits.request_bytes:
        raise _request_too_large(limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            if kind == b"multipart/form-data":
                found = await _form(request, options.get(b"boundary", b""), limits, share)
            else:
                found = await _body(request, limits, share)
    except TimeoutError:
        text = f"the body did not arrive within {limits.body_seconds:g} seconds; send it faster"
        raise Refused(408, "slow", text) from None
    if not found:
        raise Refused(400, "no_file", "the request has no file; send an image, or a form with files")
    return found


async def _body(request: Request, limits: Limits, share: Share) -> list[Upload]:
    upload = Upload(None)
    async for chunk in request.stream():
        share.take(len(chunk))
        _add(upload, chunk, limits)
    return [upload] if upload.data else []


async def _form(request: Request, boundary: bytes, limits: Limits, share: Share) -> list[Upload]:
    if not boundary:
        raise Refused(400, "form", "the Content-Type of the form has no boundary; let your HTTP library write it")
    form, size = _Form(limits), 0
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        async for chunk in request.stream():
            size += len(chunk)
            if size > limits.request_bytes:
                raise _request_too_large(limits)
            share.take(len(chunk))
            parser.write(chunk)
    except FormParserError:
        raise Refused(400, "form", "the form is malformed; let your HTTP library write it") from None
    if not form.ended:
        raise Refused(400, "form", "the form ends before its last boundary; send all of it")
    return [upload for upload in form.uploads if upload.name or upload.data]  # a page's empty file field sends neither


class _Form:
    """Collects the files of a form from the parser's callbacks; other fields are skipped."""

    def __init__(self, limits: Limits) -> None:
        self.uploads: list[Upload] = []
        self.ended = False
        self._limits, self._parts = limits, 0
        self._file: Upload | None = None
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""

    def callbacks(self) -> dict[str, object]:
        """By their names in python-multipart."""
        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end")
        return {f"on_{name}": getattr(self, f"_{name}") for name in names}

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > 4 * self._limits.images:
            raise Refused(413, "too_many", f"the form has more than {4 * self._limits.images} parts; send fewer")
        self._headers, self._name, self._value, self._file = {}, b"", b"", None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"filename" not in options:
            return
        if len(self.uploads) == self._limits.images:
            raise Refused(413, "too_many", f"more than {self._limits.images} images; send them in several requests")
        self._file = Upload(options[b"filename"].decode(errors="replace")[:_NAME])
        self.uploads.append(self._file)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            _add(self._file, data[start:end], self._limits)

    def _end(self) -> None:
        self.ended = True


def _add(upload: Upload, data: bytes, limits: Limits) -> None:
    if len(upload.data) + len(data) > limits.file_bytes:
        raise Refused(413, "too_large", f"a file has more than {limits.file_bytes:,} bytes; shrink it")
    upload.data += data


def _request_too_large(limits: Limits) -> Refused:
    return Refused(413, "too_large", f"the request has more than {limits.request_bytes:,} bytes; send less at once")
