"""The requests of the load test: good, damaged and hostile ones."""

import asyncio
import io
import random
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

BOUNDARY = "fold vote+1"
FORM = f'multipart/form-data; boundary="{BOUNDARY}"'
CHUNKED = {"Content-Type": "image/jpeg", "Transfer-Encoding": "chunked"}
HUGE = {"Content-Type": "image/jpeg", "Content-Length": str(10**15)}
Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One kind of request.

    Attributes:
        name: what it is.
        statuses: of the expected answers; 0: the connection is closed without one.
        send: writes the request.
        share: how often it is sent, relative to others.
        slow: whether the client takes long on purpose; then the latency says nothing.
        heavy: whether the server needs long.
    """

    name: str
    statuses: frozenset[int]
    send: Send
    share: int = 1
    slow: bool = False
    heavy: bool = False


def encoded(form: str, side: int = 224, seed: int = 0, **options: object) -> bytes:
    """A drawn image as a file."""
    rough = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    image, file = Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC), io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(width: int, height: int, data: bytes, *chunks: tuple[bytes, bytes], depth: int = 1, colour: int = 0) -> bytes:
    """A PNG file with any content; of one bit per pixel, if nothing else is said."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    lines = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(lines)


def zeros(count: int) -> bytes:
    """That many zero bytes, compressed to a thousandth."""
    return zlib.compress(bytes(count), 9)


def raw(body: bytes, media: str = "image/jpeg", **headers: str) -> Send:
    """A request whose body is the image."""
    named = {"Content-Type": media, "Content-Length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(head(named) + body)
        await writer.drain()

    return send


def head(headers: Mapping[str, str], line: str = "POST /predict") -> bytes:
    """A request's header."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{line} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode()


def parts(*files: tuple[str, bytes]) -> bytes:
    """The body of a form with files."""
    lines = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
        + data
        for name, data in files
    ]
    return b"\r\n".join([*lines, f"--{BOUNDARY}--\r\n".encode()])


def form(*files: tuple[str, bytes]) -> Send:
    """A request with these files."""
    return raw(parts(*files), FORM)


def crawling(body: bytes, chunk: bytes, wait: float, times: int) -> Send:
    """Bytes, and then the same few ones again and again."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(body)
        for _ in range(times):
            await writer.drain()
            await asyncio.sleep(wait)
            writer.write(chunk)

    return send


def leaving(body: bytes) -> Send:
    """A client that sends this much and disconnects."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(body)
        await writer.drain()
        writer.transport.abort()

    return send


def plain(data: bytes) -> Send:
    """Just these bytes."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return send


def cases(file_bytes: int) -> list[Case]:
    """All kinds of requests, for a server with this limit of a file and times of a few seconds for slow clients."""
    return [*_good(), *_bad_images(), *_bad_bodies(file_bytes), *_bad_clients()]


def _of(status: int, *more: int) -> frozenset[int]:
    return frozenset({status, *more})


def _several() -> list[tuple[str, bytes]]:
    return [(f"{number}.jpg", encoded("JPEG", seed=number)) for number in range(8)]


def _good() -> list[Case]:
    jpeg = encoded("JPEG")
    names = ["../../etc/passwd", "C:\\windows\\a.jpg", "a\0b.jpg", "얼굴 사진.jpg", "%0d%0aSet-Cookie: a=b", "x" * 2000]
    flat = io.BytesIO()
    Image.new("RGB", (7000, 7000), "teal").save(flat, "JPEG", progressive=True)
    grey, clear = png(7000, 7000, zeros(876 * 7000)), png(7000, 7000, zeros(28_001 * 7000), depth=8, colour=6)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(jpeg), jpeg)
    return [
        Case("JPEG as the body", _of(200), raw(jpeg), 24),
        Case("PNG as the body", _of(200), raw(encoded("PNG"), "image/png"), 8),
        Case("WebP in a form", _of(200), form(("a.webp", encoded("WEBP"))), 8),
        Case("8 JPEGs in a form", _of(200), form(*_several()), 8),
        Case("JPEG of 12 megapixels", _of(200), raw(encoded("JPEG", 3464)), 2, heavy=True),
        Case("JPEG in a chunk", _of(200), plain(head(CHUNKED) + chunks), 2),
        Case("names: ../.., NUL, Korean, %0d%0a, 2,000 letters", _of(200), form(*((name, jpeg) for name in names)), 2),
        Case("form of a good and a truncated JPEG", _of(200), form(("a.jpg", jpeg), ("b.jpg", jpeg[:-400])), 2),
        Case(f"PNG of 49 megapixels, {len(grey) >> 10} kB", _of(200), raw(grey, "image/png"), 1, heavy=True),
        Case(f"transparent PNG of 49 megapixels, {len(clear) >> 10} kB", _of(200), raw(clear, "image/png"), heavy=True),
        Case("progressive JPEG of 49 megapixels", _of(200), raw(flat.getvalue()), heavy=True),
    ]


def _bad_images() -> list[Case]:
    jpeg, kind = encoded("JPEG"), "image/png"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    gif = encoded("GIF", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    bomb = png(40_000, 40_000, zeros(5001 * 40_000))
    text = png(64, 64, zeros(9 * 64), (b"zTXt", b"Comment\0\0" + zeros(100_000_000)))
    at = jpeg.index(b"\xff\xc0") + 5  # of the size in the header
    stretched = jpeg[:at] + struct.pack(">HH", 65_500, 65_500) + jpeg[at + 4 :]
    noise = jpeg[:400] + random.Random(3).randbytes(90_000)
    return [
        Case("truncated JPEG", _of(422), raw(jpeg[:-400]), 4),
        Case("truncated PNG", _of(422), raw(encoded("PNG")[:-400], kind), 2),
        Case("zero bytes in a form", _of(422), form(("a.jpg", b""))),
        Case("text named .jpg", _of(422), form(("a.jpg", b"hello, this is text"))),
        Case("SVG", _of(422), raw(svg, "image/svg+xml")),
        Case("animated GIF", _of(422), raw(gif, "image/gif")),
        Case(f"PNG of 40,000 x 40,000 pixels, {len(bomb) >> 10} kB", _of(422), raw(bomb, kind), 2),
        Case("PNG with a comment of 100 MB when unpacked", _of(422), raw(text, kind), 2),
        Case("PNG with 200 MB more than its pixels", _of(200, 422), raw(png(64, 64, zeros(200_000_000)), kind), 2),
        Case("JPEG whose header says 65,500 x 65,500 pixels", _of(422), raw(stretched), 2),
        Case("random bytes behind a JPEG header", _of(422), raw(noise), 2),
    ]


def _bad_bodies(file_bytes: int) -> list[Case]:
    two = parts(("a.jpg", encoded("JPEG")), ("b.jpg", encoded("JPEG", seed=1)))
    long = f"--{BOUNDARY}\r\nA: {'x' * 100_000}\r\n\r\n".encode()
    return [
        Case("no bytes", _of(400), raw(b"")),
        Case("form of 40 images", _of(413), form(*_several() * 5), 2),
        Case("form of 10,000 parts", _of(413), form(*[("a", b"")] * 10_000), 2),
        Case("form without a boundary", _of(400), raw(two, "multipart/form-data")),
        Case("form with another boundary", _of(400), raw(two, "multipart/form-data; boundary=other")),
        Case("form that ends early", _of(400), raw(two[:-9], FORM)),
        Case("form of random bytes", _of(400), raw(random.Random(5).randbytes(9000), FORM)),
        Case("form with a header of 100 kB", _of(400), raw(long, FORM)),
        Case("form without files", _of(400), raw(f"--{BOUNDARY}--\r\n".encode(), FORM)),
        Case("text/plain", _of(415), raw(b"hello", "text/plain")),
        Case("gzip", _of(415), raw(zeros(10_000_000), Content_Encoding="gzip")),
        Case("Content-Length of 1 PB", _of(413), crawling(head(HUGE), bytes(1 << 16), 0, 40), 2),
        Case("file above the limit", _of(413), form(("a.jpg", bytes(file_bytes + 1))), 2),
    ]


def _bad_clients() -> list[Case]:
    jpeg, eight = encoded("JPEG"), parts(*_several())
    mega = b"%x\r\n%s\r\n" % (1 << 20, bytes(1 << 20))
    small = {"Content-Type": "image/jpeg", "Content-Length": "99"}
    whole = head({"Content-Type": FORM, "Content-Length": str(len(eight))}) + eight
    tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"
    longer = str(len(jpeg) + 9)
    return [
        Case("chunks without end", _of(413), crawling(head(CHUNKED), mega, 0, 200), 2),
        Case("chunks of one byte", _of(400), plain(head(CHUNKED) + b"1\r\na\r\n" * 50_000), 2),
        Case("broken chunk", _of(400, 0), plain(head(CHUNKED) + b"zz\r\nabc\r\n")),
        Case("no such path", _of(404), plain(head({}, "GET /../../etc/passwd"))),
        Case("wrong method", _of(405), plain(head({}, "PUT /predict"))),
        Case("no HTTP", _of(400), plain(tls)),
        Case("header of 1 MB", _of(400, 0), plain(head({"X-Long": "a" * (1 << 20)}))),
        Case("slow body", _of(408), crawling(head(small), b"a", 0.4, 60), 2, slow=True),
        Case("slow header", _of(408), crawling(b"POST /predict HTTP/1.1\r\n", b"a", 0.4, 60), 2, slow=True),
        Case("silent client", _of(0), plain(b""), 2, slow=True),
        Case("Content-Length above the body", _of(408), raw(jpeg, Content_Length=longer), 2, slow=True),
        Case("client leaves within the body", _of(0), leaving(whole[:9000]), 2),
        Case("client leaves before the answer", _of(0), leaving(whole), 2),
    ]
