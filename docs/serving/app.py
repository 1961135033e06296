"""The HTTP service of a bundle: POST /predict, GET /health, GET /info; docs/serving.md says how to use it.

`python serve.py BUNDLE` starts it. Behind a proxy that keeps slow clients away, any ASGI server will do:

    BUNDLE=results/bundle uvicorn --factory app:create_app
"""

import asyncio
import logging
import os
import sys
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from uploads import Limits, Memory, Refused, Upload, read_uploads

LOG = logging.getLogger("serving")
logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings repeat what clients sent
RETRY_SECONDS = 1


class Service:
    """Predicts the images of requests: a few at once, a bounded number waiting."""

    def __init__(self, folder: Path, limits: Limits, threads: int | None) -> None:
        sys.path.insert(0, str(folder))
        from ingest.conformal import prediction_sets
        from predict import Bundle

        self.limits = limits
        self.memory = Memory(limits.held_bytes)
        self.bundle = Bundle(folder, threads or os.cpu_count(), batch=limits.images)
        self.accepted = 0  # requests that run or wait
        self.pool = ThreadPoolExecutor(limits.running, thread_name_prefix="predict")
        self._turn = asyncio.Semaphore(limits.running)
        self._sets = prediction_sets

    async def answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        """The status and the content of the answer.

        Raises:
            Refused: if the request is not answered.
            ClientDisconnect: if nobody waits for the answer.
        """
        with self.memory.share() as share:
            uploads = await read_uploads(request, self.limits, share)
            if self.accepted >= self.limits.running + self.limits.waiting:
                raise Refused(503, "busy", "too many requests are waiting; send it again later")
            self.accepted += 1
            try:
                async with self._turn:
                    if await request.is_disconnected():
                        raise ClientDisconnect
                    images = await asyncio.get_running_loop().run_in_executor(self.pool, self.predicted, uploads)
            finally:
                self.accepted -= 1
        return 422 if all("error" in image for image in images) else 200, {"images": images}

    def predicted(self, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        """One entry for each image, in their order: its prediction, or why it is rejected."""
        entries: list[dict[str, Any]] = [{"name": upload.name} for upload in uploads]
        classes, least = self.bundle.classes, self.bundle.settings["least_probability"]
        for piece in self.bundle.pieces([bytes(upload.data) for upload in uploads]):
            for row, bad in piece.bad.items():
                entries[row]["error"] = {"reason": bad.reason, "message": bad.message}
            sets = None if least is None else self._sets(piece.probabilities, piece.codes, least)
            for at, (row, code) in enumerate(zip(piece.rows, piece.codes.tolist(), strict=True)):
                own = piece.probabilities[at].tolist()
                likely = sorted(range(len(classes)), key=lambda one: -own[one])
                inside = None if sets is None else [classes[one] for one in likely if sets[at][one]]
                entries[row] |= {
                    "class": classes[code],
                    "code": code,
                    "probability": own[code],
                    "probabilities": dict(zip(classes, own, strict=True)),
                    "set": inside,
                    "review": None if inside is None else len(inside) > 1,
                }
        return entries

    def info(self) -> dict[str, Any]:
        """What the service predicts, and what it takes."""
        settings = self.bundle.settings
        return {
            "classes": self.bundle.classes,
            "images": settings["images"],
            "least_probability": settings["least_probability"],
            "files": settings["files"],
            "limits": asdict(self.limits),
        }


def create_app(folder: str | Path | None = None, limits: Limits | None = None, threads: int | None = None) -> FastAPI:
    """The ASGI application.

    Args:
        folder: the bundle; None: the one that the environment variable BUNDLE names.
        limits: what is taken.
        threads: CPU threads of a forward pass; None: as many as there are cores.
    """
    place = Path(folder or os.environ.get("BUNDLE", "bundle")).resolve()
    if not (place / "predict.py").is_file():
        sys.exit(f"{place}: holds no bundle; give the folder of predict.py and settings.json")
    service = Service(place, limits or Limits(), threads)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.pool.shutdown(cancel_futures=True)

    app = FastAPI(title="foldvote bundle", lifespan=lifespan, docs_url=None, redoc_url=None)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the service answers, and how busy it is."""
        return {"status": "ok", "accepted": service.accepted, "held_bytes": service.memory.held}

    @app.get("/info")
    async def info() -> dict[str, Any]:
        """What the service predicts, and what it takes."""
        return service.info()

    @app.post("/predict", openapi_extra={"requestBody": _BODY})
    async def predict(request: Request) -> Response:
        """Predict the images of a form or a body."""
        start = time.perf_counter()
        status, content = await _answered(service, request)
        # Numbers and codes of our own only: nothing that a client wrote stands in the log.
        entries = content.get("images", [])
        reasons = [entry["error"]["reason"] for entry in [*entries, content] if "error" in entry]
        spent = (time.perf_counter() - start) * 1000
        LOG.info("predict %d, %d images, %.0f ms %s", status, len(entries), spent, " ".join(reasons))
        return _json(status, content)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        text = "there are POST /predict, GET /health and GET /info"
        return _json(error.status_code, {"error": {"reason": "route", "message": text}}, error.headers)

    return app


async def _answered(service: Service, request: Request) -> tuple[int, dict[str, Any]]:
    try:
        return await service.answer(request)
    except Refused as error:
        return error.status, {"error": {"reason": error.reason, "message": error.message}}
    except ClientDisconnect:
        return 499, {"error": {"reason": "disconnected", "message": "the client left"}}  # for the log; nobody reads it
    except Exception as error:  # without its text, which may hold what a client sent
        LOG.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        return 500, {"error": {"reason": "internal", "message": "the service failed; its log says where"}}


def _json(status: int, content: dict[str, Any], headers: Any = None) -> Response:
    busy = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
    return JSONResponse(content, status, {**(headers or {}), **busy})


_FILE = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "object", "properties": {"file": {"type": "array", "items": _FILE["schema"]}}}
_BODY = {"required": True, "content": {"image/*": _FILE, "multipart/form-data": {"schema": _FILES}}}
