"""The service of docs/serving: what it answers, and that no client can harm it."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

from foldvote.config.bundle import Bundle as Wanted
from foldvote.config.ensemble import Submission
from foldvote.deployment.bundle import assemble, exported_run
from foldvote.deployment.bundle_predict import Bundle
from foldvote.evaluation.conformal import prediction_sets
from hostile import Send, cases, encoded, form, head, plain, raw
from load import BUSY, Server, asked
from support.deployed_run import deployed_run
from support.processes import python

FILE_BYTES = 300_000
SERVING = Path(__file__).parents[1] / "docs/serving"
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = deployed_run(tmp_path_factory.mktemp("run"))
    folder, wanted = tmp_path_factory.mktemp("built") / "bundle", Wanted()
    assemble(exported_run(run.results, wanted), Submission(), folder, wanted)
    return folder


def started(bundle: Path, folder: Path, **limits: object) -> Server:
    """A server with short times, whose temporary files would lie in an empty folder."""
    (folder / "tmp").mkdir()
    limits = {"body_seconds": 1, "header_seconds": 1, "file_bytes": FILE_BYTES, "threads": 1} | limits
    options = [word for name, value in limits.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    made = Server(bundle, folder / "tmp", *options)
    asyncio.run(made.ready())
    return made


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = started(bundle, tmp_path_factory.mktemp("served"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def small(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that holds little."""
    folder = tmp_path_factory.mktemp("small")
    limits = {"running": 1, "waiting": 1, "held_bytes": 400_000, "connections": 12, "images": 3}
    made = started(bundle, folder, **limits, body_seconds=4, header_seconds=3)
    yield made
    made.stop()


def ask(server: Server, send: Send) -> tuple[int, dict]:
    status, body = asyncio.run(asked(server.port, send, 60))
    return status, json.loads(body or b"{}")


def connected(server: Server, data: bytes) -> socket.socket:
    """A connection that has sent this, and will wait for half a minute for anything."""
    client = socket.create_connection(("127.0.0.1", server.port), 30)
    client.sendall(data)
    return client


def open_files(server: Server, expected: int, seconds: float = 5) -> int:
    """Of the server; a connection that was just closed may count for a moment."""
    until = time.monotonic() + seconds
    while server.status()["files"] > expected and time.monotonic() < until:
        time.sleep(0.05)
    return server.status()["files"]


def test_a_form_is_answered_as_the_bundle_predicts(server: Server, bundle: Path) -> None:
    names = ["얼굴 사진.jpg", "../../etc/passwd", "a\0b.png", "plain.webp"]
    files = [encoded(kind, 60, seed) for seed, kind in enumerate(["JPEG", "JPEG", "PNG", "WEBP"])]
    status, answer = ask(server, form(*zip(names, files, strict=True)))
    assert status == 200
    predictor = Bundle(bundle, 1)
    probabilities, codes = predictor.votes(files)
    sets = prediction_sets(probabilities, codes, predictor.settings["least_probability"])
    assert [image["name"] for image in answer["images"]] == names
    for row, image in enumerate(answer["images"]):
        assert list(image["probabilities"]) == predictor.classes
        assert np.abs(np.array(list(image["probabilities"].values())) - probabilities[row]).max() < 1e-6
        assert (image["code"], image["class"]) == (codes[row], predictor.classes[codes[row]])
        assert image["probability"] == image["probabilities"][image["class"]]
        assert set(image["set"]) == {name for name, inside in zip(predictor.classes, sets[row], strict=True) if inside}
        assert image["review"] == (len(image["set"]) > 1)
    info = ask(server, plain(head({}, "GET /info")))[1]
    assert (info["classes"], info["limits"]["file_bytes"]) == (predictor.classes, FILE_BYTES)


def test_a_bad_image_fails_alone(server: Server) -> None:
    good, cut = encoded("JPEG"), encoded("JPEG")[:-400]
    alone = ask(server, raw(good))[1]["images"][0]
    status, answer = ask(server, form(("a", good), ("b", cut), ("c", good), ("d", b"")))
    assert status == 200
    assert [image.get("error", {}).get("reason") for image in answer["images"]] == [None, "truncated", None, "empty"]
    assert answer["images"][0]["probability"] == pytest.approx(alone["probability"])
    assert "the JPEG lacks its end" in answer["images"][1]["error"]["message"]
    assert ask(server, form(("b", cut), ("d", b"")))[0] == 422


def test_hostile_requests_at_once_get_clear_answers_and_leave_nothing(server: Server) -> None:
    asked_for = [case for case in cases(FILE_BYTES) if not case.heavy]
    before = server.status()

    async def answers() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(asked(server.port, case.send, 60) for case in asked_for))

    for case, (status, body) in zip(asked_for, asyncio.run(answers()), strict=True):
        assert status in case.statuses, f"{case.name}: {status} {body!r}"
        if 400 < status < 500:
            content = json.loads(body)
            lines = [entry["error"]["message"] for entry in content.get("images", [content])]
            assert all(line and "\n" not in line and "Traceback" not in line for line in lines)
    at_rest, until = {"status": "ok", "accepted": 0, "held_bytes": 0}, time.monotonic() + 20
    while ask(server, plain(head({}, "GET /health")))[1] != at_rest and time.monotonic() < until:
        time.sleep(0.05)  # for clients that were refused while they sent
    assert ask(server, raw(encoded("JPEG")))[0] == 200
    assert ask(server, plain(head({}, "GET /health")))[1] == at_rest
    assert list(server.folder.iterdir()) == []
    assert open_files(server, before["files"]) <= before["files"]
    told = server.log.read_text(encoding="utf-8")
    assert "predict 413, 0 images" in told
    assert "predict 499" in told  # of clients that left
    own = re.compile(r"\S+ \S+ \w+ predict \d+, \d+ images, \d+ ms [a-z_ ]*")
    of_uvicorn = re.compile(r"(INFO|WARNING): +[A-Z][\w .,:/()\[\]+]+")
    lines = told.splitlines()
    assert [line for line in lines if not own.fullmatch(line) and not of_uvicorn.fullmatch(line)] == []


def test_too_many_at_once_are_sent_away_and_told_when_to_come_back(small: Server) -> None:
    image = raw(encoded("JPEG", 2000))

    async def answers() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(asked(small.port, image, 60) for _ in range(10)))

    statuses = [status for status, _ in asyncio.run(answers())]
    assert set(statuses) == {200, BUSY}
    assert statuses.count(200) >= 2
    assert ask(small, form(*[("a", encoded("JPEG", 60))] * 4)) == (
        413,
        {"error": {"reason": "too_many", "message": "more than 3 images; send them in several requests"}},
    )


def test_uploads_that_are_not_complete_count_as_memory(small: Server) -> None:
    waiting = connected(small, head(JPEG | {"Content-Length": "290000"}) + bytes(289_000))
    other, until = raw(bytes(200_000)), time.monotonic() + 3
    while ask(small, plain(head({}, "GET /health")))[1]["held_bytes"] < 289_000 and time.monotonic() < until:
        time.sleep(0.02)
    assert ask(small, other)[0] == BUSY
    assert b" 408 " in waiting.recv(1000)
    assert ask(small, other)[0] == 422
    waiting.close()


def test_connections_above_the_limit_are_closed(small: Server) -> None:
    before = open_files(small, 0, seconds=1)
    held = [connected(small, b"") for _ in range(12)]
    until = time.monotonic() + 2
    while small.status()["files"] < before + 12 and time.monotonic() < until:
        time.sleep(0.05)
    told = connected(small, b"").recv(1000)
    assert told.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nretry-after: 1\r\n" in told
    assert [client.recv(10) for client in held] == [b""] * 12  # silent ones are closed
    assert ask(small, plain(head({}, "GET /health")))[0] == 200


def test_a_connection_is_used_again_and_its_second_header_may_not_crawl_either(server: Server) -> None:
    client = HTTPConnection("127.0.0.1", server.port, timeout=30)
    for _ in range(2):
        client.request("POST", "/predict", b"text", {"Content-Type": "text/plain"})
        answer = client.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["reason"]) == (415, "media_type")
    assert client.sock is not None
    client.sock.sendall(b"POST /predict HT")
    assert client.sock.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert client.sock.recv(10) == b""


def test_the_rest_of_a_refused_body_is_not_read_for_ever(server: Server) -> None:
    client = connected(server, head({"Content-Type": "text/plain", "Content-Length": "1000000000000"}))
    assert b" 415 " in client.recv(1000)
    start = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() < start + 20:
            client.sendall(bytes(1000))
            time.sleep(0.01)
    assert 1 < time.monotonic() - start < 10


def test_a_client_that_reads_no_answer_is_cut_off(server: Server) -> None:
    before = server.status()["files"]
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    client.settimeout(20)
    with pytest.raises(OSError):
        for _ in range(200):
            client.sendall(head({}, "GET /info") * 1000)
    assert open_files(server, before) <= before
    assert server.status()["VmRSS"] < 500


def test_without_a_bundle_one_line_says_so(tmp_path: Path, bundle: Path) -> None:
    command = [sys.executable, str(SERVING / "serve.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}: holds no bundle; give the folder of predict.py and settings.json\n"
    code = "import sys; sys.path.insert(0, sys.argv[1]); from app import create_app; print(create_app().title)"
    assert python(code, SERVING, BUNDLE=str(bundle)).communicate(timeout=60)[0] == "foldvote bundle\n"
