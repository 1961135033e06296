"""The processes that train one member together, and the messages between them.

Every process runs the same loop over the same member and takes its own shard of each batch. What has to be decided
(stop, save, end) is decided once and sent to all, so that no process acts on what it alone knows. A single process has
a group of size 1, for which every method returns at once.

Tensors on a GPU are sent by NCCL and tensors on the CPU by gloo: messages between processes never wait for a GPU.
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
# For a process that is busy, with a slow disk for instance; one that died is noticed at once.
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Rank:
    """Which of the processes of a group this one is, and how it joins.

    Attributes:
        rank: its number, from 0; also that of its device among those of the job.
        size: number of processes.
        port: the port of this machine at which they meet; None for a single process.
    """

    rank: int = 0
    size: int = 1
    port: int | None = None


SINGLE_RANK = Rank()


@dataclass(frozen=True)
class ProcessGroup:
    """One process of those that train a member. All of them must call every method but `shard`, in the same order.

    Attributes:
        rank: its number, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports for all."""
        return self.rank == 0

    def shard(self, positions: np.ndarray) -> np.ndarray:
        """This process's part of a batch. The shards in the order of the processes are the whole batch."""
        return np.array_split(positions, self.size)[self.rank]

    def max(self, number: int) -> int:
        """The largest of the numbers that the processes pass."""
        if self.size == 1:
            return number
        largest = torch.tensor(number)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def broadcast(self, value: T) -> T:
        """Send the first process's value to all: numbers, strings, lists and dicts with string keys."""
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
        """The mean over the processes of each number, on the device that they are on; the tensor is overwritten."""
        if self.size > 1:
            dist.all_reduce(numbers)
            numbers /= self.size
        return numbers

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, in the order of the processes. All must pass equally many."""
        if self.size == 1:
            return rows
        whole = rows.new_empty((self.size * len(rows), *rows.shape[1:]))
        dist.all_gather(list(whole.chunk(self.size)), rows.contiguous())
        return whole

    def map_sharded(self, function: Callable[[np.ndarray], np.ndarray], items: np.ndarray) -> np.ndarray:
        """Apply a function to all items, of which each process computes its part.

        Args:
            function: gives one row per item.
            items: array whose first axis is split; the parts are filled up to equal length by repeating items from the
                beginning, so that none is empty.

        Returns:
            The rows of all items, in their order, in every process.
        """
        if self.size == 1:
            return function(items)
        length = -(-len(items) // self.size)
        own = np.resize(items, (self.size, length))[self.rank]
        return self.gather(torch.from_numpy(function(own)))[: len(items)].numpy()

    def sync_buffers(self, model: nn.Module) -> None:
        """Copy the first process's buffers to all: each process counted the statistics of its own images."""
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
    """Open, for the block, a port on this machine's loopback at which the processes of a group find each other."""
    listening = socket.create_server((_HOST, 0))
    port = listening.getsockname()[1]
    store = dist.TCPStore(
        _HOST, port, is_master=True, wait_for_workers=False, timeout=_TIMEOUT, master_listen_fd=listening.detach()
    )
    yield port
    del store


@contextmanager
def join_process_group(place: Rank, device: torch.device) -> Iterator[ProcessGroup]:
    """Join the other processes for the block.

    Args:
        place: which of the processes this is, and where they meet.
        device: the device that this process works on.
    """
    if place.port is None:
        yield SINGLE_PROCESS
        return
    # The processes are on one machine: neither its name nor any of its networks has to be known.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=dist.TCPStore(_HOST, place.port, is_master=False, timeout=_TIMEOUT),
        rank=place.rank,
        world_size=place.size,
        timeout=_TIMEOUT,
        device_id=device if on_gpu else None,
    )
    yield ProcessGroup(place.rank, place.size)
    dist.destroy_process_group()  # not after an error: it could wait for a process that is gone
