"""A real Slurm cluster of this one machine, for as long as a block lasts: munged, slurmctld, slurmd, two false GPUs.

It listens on the loopback interface only. Needs root and Debian's packages slurm-wlm and munge, which are installed
where they are missing. Slurm's own programs find it through /etc/slurm: where a configuration of somebody else lies
there, nothing is touched.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ETC = Path("/etc/slurm")
MARK = "# made by foldvote's Slurm test, and removed by it"
NODE = "foldvote"
GPUS = 2
PORTS = {"SlurmctldPort": 16817, "SlurmdPort": 16818}
# The node says that it has eight cores and 200 GB, so that the shipped profile fits it as it is.
CONFIG = """{mark}
ClusterName=foldvote
SlurmctldHost={host}(127.0.0.1)
{ports}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
MinJobAge=300
KillWait=30
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=200000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={node} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={node} MaxTime=INFINITE State=UP
"""


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Start the cluster in a folder and stop it, whatever happens."""
    _install()
    files = {ETC / "slurm.conf": _config(folder), ETC / "gres.conf": _gres(folder)}
    for path in files:
        if path.exists() and MARK not in path.read_text():
            sys.exit(f"{path}: belongs to another Slurm; this test needs a machine without one")
    for name in ("state", "spool", "devices"):
        (folder / name).mkdir(parents=True)
    for number in range(GPUS):  # Slurm wants a device, and not which
        os.mknod(folder / f"devices/nvidia{number}", 0o600 | 0o020000, os.makedev(1, 3))
    started: list[subprocess.Popen] = []
    try:
        for path, text in files.items():
            path.write_text(text)
        started.append(_munge(folder))
        started.append(_daemon(folder, "slurmctld", "-D", "-c"))
        started.append(_daemon(folder, "slurmd", "-D", "-N", NODE))
        _wait_until_idle(folder, started)
        yield
    finally:
        subprocess.run(["scancel", "--partition=cpu,gpu"], capture_output=True, timeout=30)
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        for path in files:
            path.unlink(missing_ok=True)


def _install() -> None:
    if shutil.which("slurmctld") and shutil.which("slurmd") and shutil.which("munged"):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        sys.exit("the Slurm test needs slurm-wlm and munge: apt-get install slurm-wlm munge")
    quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update", "-qq"], **quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "slurm-wlm", "munge"], **quiet)


def _config(folder: Path) -> str:
    ports = "\n".join(f"{name}={port}" for name, port in PORTS.items())
    host = socket.gethostname()
    return CONFIG.format(mark=MARK, host=host, ports=ports, folder=folder, node=NODE, gpus=GPUS)


def _gres(folder: Path) -> str:
    return f"{MARK}\nNodeName={NODE} Name=gpu File={folder}/devices/nvidia[0-{GPUS - 1}]\n"


def _munge(folder: Path) -> subprocess.Popen:
    """The daemon that signs Slurm's messages, with a key, a socket and files of its own."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    own = {"--key-file": key, "--socket": "munge.socket", "--pid-file": "munge.pid", "--seed-file": "munge.seed"}
    options = [f"{name}={folder / value}" for name, value in (own | {"--log-file": "munge.log"}).items()]
    process = _daemon(folder, "munged", "--foreground", "--force", *options)
    _wait((folder / "munge.socket").exists, [process], folder, "munged")
    return process


def _daemon(folder: Path, name: str, *arguments: str) -> subprocess.Popen:
    """Start a daemon whose words go to a file."""
    with (folder / f"{name}.out").open("wb") as words:
        path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        return subprocess.Popen([path, *arguments], stdout=words, stderr=subprocess.STDOUT, start_new_session=True)


def _wait_until_idle(folder: Path, started: list[subprocess.Popen]) -> None:
    def idle() -> bool:
        asked = subprocess.run(["sinfo", "-h", "-N", "-p", "gpu", "-o", "%G %T"], capture_output=True, text=True)
        return asked.stdout.strip().endswith("idle")

    _wait(idle, started, folder, "Slurm")


def _wait(condition: object, started: list[subprocess.Popen], folder: Path, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        dead = [process.args[0] for process in started if process.poll() is not None]
        if dead or time.monotonic() > deadline:
            words = "\n".join(f"{path.name}: {path.read_text()[-1000:]}" for path in sorted(folder.glob("*.out")))
            sys.exit(f"{what} did not start ({', '.join(dead) or 'not within a minute'}):\n{words}")
        time.sleep(0.2)
