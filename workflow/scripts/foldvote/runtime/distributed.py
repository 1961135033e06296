"""The processes that train one member together, and what they tell each other.

Every process is given the same member and takes its own share of each batch; what must be decided is decided once and
told to all, so that they never part ways. A team of one is what trains on one device: it has no process group, and
none of this costs it anything.

Tensors on a GPU go by NCCL, tensors on the CPU by gloo: messages between processes never wait for a GPU.
"""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")
_HOST = "127.0.0.1"
_PATIENCE = timedelta(
    minutes=30
)  # for a process that is busy, with a slow disk for instance; a dead one is seen at once


@dataclass(frozen=True)
class Rank:
    """One process's place in a team.

    Attributes:
        rank: its number, from 0; also that of its device among those of the job.
        size: processes of the team.
        port: where they meet on this machine; None for a team of one.
    """

    rank: int = 0
    size: int = 1
    port: int | None = None


SINGLE_RANK = Rank()


@dataclass(frozen=True)
class ProcessGroup:
    """A process among those that train one member; every method but `own` is called by all of them alike.

    Attributes:
        rank: its number, from 0.
        size: processes of the team.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def own(self, positions: np.ndarray) -> np.ndarray:
        """This process's share of a batch: the shares in the order of the processes are the batch."""
        return np.array_split(positions, self.size)[self.rank]

    def most(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        told = torch.tensor(number)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told)

    def share(self, value: T) -> T:
        """The first process's value, in all of them: plain numbers, texts, lists and mappings of texts."""
        if self.size == 1:
            return value
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor(len(text))
        dist.broadcast(length, src=0)
        if not self.first:
            text = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(text, src=0)
        return json.loads(text.numpy().tobytes())

    def mean(self, numbers: torch.Tensor) -> torch.Tensor:
        """The mean over the processes of each number, on the device that they are on."""
        if self.size > 1:
            dist.all_reduce(numbers)
            numbers /= self.size
        return numbers

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, which have equally many, in the order of the processes."""
        if self.size == 1:
            return rows
        whole = rows.new_empty((self.size * len(rows), *rows.shape[1:]))
        dist.all_gather(list(whole.chunk(self.size)), rows.contiguous())
        return whole

    def spread(self, function: Callable[[np.ndarray], np.ndarray], items: np.ndarray) -> np.ndarray:
        """What `function` gives for all items, a row each; each process asks it for its share.

        Shares are filled up to equal length from the beginning, so that none is empty.
        """
        if self.size == 1:
            return function(items)
        length = -(-len(items) // self.size)
        own = np.resize(items, (self.size, length))[self.rank]
        return self.gather(torch.from_numpy(function(own)))[: len(items)].numpy()

    def align(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers: each has seen other images, and counted other statistics."""
        if self.size == 1:
            return
        with torch.no_grad():
            for buffer in model.buffers():
                sent = buffer.contiguous()
                dist.broadcast(sent, src=0)
                buffer.copy_(sent)


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def rendezvous() -> Iterator[int]:
    """For the block, a port of this machine's loopback at which the processes of a team find each other."""
    listening = socket.create_server((_HOST, 0))
    port = listening.getsockname()[1]
    store = dist.TCPStore(
        _HOST, port, is_master=True, wait_for_workers=False, timeout=_PATIENCE, master_listen_fd=listening.detach()
    )
    yield port
    del store


@contextmanager
def join_process_group(place: Rank, device: torch.device) -> Iterator[ProcessGroup]:
    """Be one of a team for the block.

    Args:
        place: where in it, and where it meets.
        device: the one that this process works on.
    """
    if place.port is None:
        yield SINGLE_PROCESS
        return
    # One machine alone: no name of it needs to be known, and none of its networks.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=dist.TCPStore(_HOST, place.port, is_master=False, timeout=_PATIENCE),
        rank=place.rank,
        world_size=place.size,
        timeout=_PATIENCE,
        device_id=device if on_gpu else None,
    )
    yield ProcessGroup(place.rank, place.size)
    dist.destroy_process_group()  # not after an error: it could wait for a process that is gone
