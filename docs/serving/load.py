"""A load test of the service: good, damaged and hostile requests, many at once, on the loopback interface.

    python docs/serving/load.py BUNDLE [--requests 1000] [--clients 48]

Starts serve.py with short times for slow clients, and prints the answers by kind of request and status, latencies, and
the memory of the server. Ends with 1 if any answer is not the expected one, or the server died or left anything behind.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from app import RETRY_SECONDS
from hostile import Case, Send, cases, head, plain

SECONDS = 3  # that a client may take for a header or a body in this test
BUSY = 503
TRIES = 60  # of a client that is told to come back


async def asked(port: int, send: Send, patience: float = 120.0) -> tuple[int, bytes]:
    """Send a request. The status of the answer, 0 if there is none, and its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sending = asyncio.ensure_future(send(writer))
    try:
        async with asyncio.timeout(patience):
            status = int((await reader.readuntil(b"\r\n")).split()[1])
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), None)
            return status, await (reader.read() if length is None else reader.readexactly(length))
    except (OSError, asyncio.IncompleteReadError):
        return 0, b""
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.transport.abort()


class Server:
    """serve.py in a process of its own, with an empty folder for temporary files."""

    def __init__(self, bundle: Path, folder: Path, *options: str) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: int = taken.getsockname()[1]
        self.folder = folder
        self.log = folder.with_name("log")
        command = [sys.executable, str(Path(__file__).with_name("serve.py")), str(bundle), "--port", str(self.port)]
        with self.log.open("wb") as log:
            environment = os.environ | {"TMPDIR": str(folder)}
            self.process = subprocess.Popen([*command, *options], stdout=log, stderr=log, env=environment)

    async def ready(self) -> None:
        """Wait until it answers."""
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                if (await asked(self.port, plain(head({}, "GET /health"))))[0] == 200:
                    return
            except OSError:
                await asyncio.sleep(0.1)
        raise SystemExit(f"the server does not start:\n{self.log.read_text()}")

    def status(self) -> dict[str, int]:
        """MB of memory now and at most, threads, open files (Linux)."""
        folder = Path(f"/proc/{self.process.pid}")
        lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        memory = {name: int(lines[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM")}
        return memory | {"Threads": int(lines["Threads"]), "files": len(list((folder / "fd").iterdir()))}

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)


async def load(server: Server, requests: int, clients: int) -> list[str]:
    """Send everything and print what came back. The faults that were found."""
    info = json.loads((await asked(server.port, plain(head({}, "GET /info"))))[1])
    kinds = cases(info["limits"]["file_bytes"])
    good = kinds[0].send
    first = (await asked(server.port, good))[1]
    before = server.status()
    total = sum(case.share for case in kinds)
    turns = [case for case in kinds for _ in range(max(round(requests * case.share / total), 1))]
    random.Random(7).shuffle(turns)
    answers: dict[str, Counter[int]] = defaultdict(Counter)
    spent: dict[str, list[float]] = defaultdict(list)
    faults: list[str] = []
    queue, done = iter(turns), asyncio.Event()

    async def client() -> None:
        for case in queue:
            for _ in range(TRIES):
                start = time.perf_counter()
                status, body = await asked(server.port, case.send)
                answers[case.name][status] += 1
                if status and not case.slow:
                    kind = "told to come back (503)" if status == BUSY else "predicted" if status == 200 else "refused"
                    spent[kind].append(time.perf_counter() - start)
                if status != BUSY:
                    break
                await asyncio.sleep(RETRY_SECONDS)
            if status not in case.statuses:
                faults.append(f"{case.name}: {status} {body[:200]!r}")

    async def probe() -> None:
        while not done.is_set():
            start = time.perf_counter()
            if (await asked(server.port, plain(head({}, "GET /health"))))[0] != 200:
                faults.append("GET /health did not answer")
            spent["GET /health meanwhile"].append(time.perf_counter() - start)
            await asyncio.sleep(0.05)

    started, probing = time.perf_counter(), asyncio.ensure_future(probe())
    await asyncio.gather(*(client() for _ in range(clients)))
    took = time.perf_counter() - started
    done.set()
    await probing
    await asyncio.sleep(SECONDS + 3)
    if server.process.poll() is not None:
        return [*faults, f"the server died with {server.process.returncode}"]
    if (await asked(server.port, good))[1] != first:
        faults.append("the prediction of an image has changed")
    busy = json.loads((await asked(server.port, plain(head({}, "GET /health"))))[1])
    if busy["accepted"] or busy["held_bytes"]:
        faults.append(f"something is left: {busy}")
    after, left = server.status(), list(server.folder.iterdir())
    if left:
        faults.append(f"temporary files are left: {left}")
    report(kinds, answers, spent)
    print(f"\n{len(turns)} requests by {clients} clients at once in {took:.0f} s")
    print(
        f"memory (RSS): {before['VmRSS']} MB before, {after['VmHWM']} MB at most, {after['VmRSS']} MB after; ", end=""
    )
    print(f"threads {before['Threads']} and {after['Threads']}, open files {before['files']} and {after['files']}")
    return faults


def report(kinds: list[Case], answers: Mapping[str, Counter[int]], spent: Mapping[str, list[float]]) -> None:
    """Print the tables."""
    print("| request | answers: number x status |\n|---|---|")
    for case in kinds:
        found = ", ".join(f"{count} x {status or 'none'}" for status, count in sorted(answers[case.name].items()))
        print(f"| {case.name} | {found} |")
    print("\n| | number | p50 | p95 | p99 | max, ms |\n|---|---|---|---|---|---|")
    for kind, seconds in sorted(spent.items()):
        values = [f"{value * 1000:.0f}" for value in [*np.percentile(seconds, [50, 95, 99]), max(seconds)]]
        print(f"| {kind} | {len(seconds)} | {' | '.join(values)} |")
    statuses: Counter[int] = sum(answers.values(), Counter())
    print("\nanswers by status: " + ", ".join(f"{status or 'none'}: {n}" for status, n in sorted(statuses.items())))


async def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Load test of the service, see docs/serving.md.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=48)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name, "tmp")
        folder.mkdir()
        server = Server(options.bundle, folder, "--body-seconds", str(SECONDS), "--header-seconds", str(SECONDS))
        try:
            await server.ready()
            faults = await load(server, options.requests, options.clients)
            text = server.log.read_text(encoding="utf-8", errors="replace")
            print(f"log: {text.count(chr(10))} lines, {text.count('Traceback')} tracebacks")
        finally:
            server.stop()
    print("\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
