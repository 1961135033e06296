"""The processes that train one member together, and the messages between them.

Every process runs the same training loop and takes its own shard of each batch. Decisions (stop, save, end) are made by
the first process and sent to all, so that the processes never diverge. A single process has a group of size 1, for
which every method returns at once.

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
# For a busy process, for instance with a slow disk; a process that died is noticed at once.
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Rank:
    """The place of this process in its group.

    Attributes:
        rank: number of the process, from 0; also the number of its device among those of the job.
        size: number of processes.
        port: local port at which the processes connect; None for a single process.
    """

    rank: int = 0
    size: int = 1
    port: int | None = None


SINGLE_RANK = Rank()


@dataclass(frozen=True)
class ProcessGroup:
    """The group of processes that train one member together, as seen by one of them.

    All processes must call every method except `shard`, in the same order.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports for all."""
        return self.rank == 0

    def shard(self, positions: np.ndarray) -> np.ndarray:
        """This process's part of a batch. All shards, in the order of the processes, are the whole batch."""
        return np.array_split(positions, self.size)[self.rank]

    def max(self, number: int) -> int:
        """The maximum over the processes."""
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
        """The mean of each number over the processes; the tensor is overwritten and stays on its device."""
        if self.size > 1:
            dist.all_reduce(numbers)
            numbers /= self.size
        return numbers

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, in the order of the processes. All must pass the same number of rows."""
        if self.size == 1:
            return rows
        whole = rows.new_empty((self.size * len(rows), *rows.shape[1:]))
        dist.all_gather(list(whole.chunk(self.size)), rows.contiguous())
        return whole

    def map_sharded(self, function: Callable[[np.ndarray], np.ndarray], items: np.ndarray) -> np.ndarray:
        """Apply a function to all items; each process computes a part of them.

        Args:
            function: returns one row per item.
            items: array that is split along its first axis. Parts are padded to equal length by repeating items from
                the beginning, so that none is empty.

        Returns:
            The rows of all items, in their order, in every process.
        """
        if self.size == 1:
            return function(items)
        length = -(-len(items) // self.size)
        own = np.resize(items, (self.size, length))[self.rank]
        return self.gather(torch.from_numpy(function(own)))[: len(items)].numpy()

    def sync_buffers(self, model: nn.Module) -> None:
        """Copy the buffers of the first process to all, because each process has statistics of its own images only."""
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
    """Open a port on the loopback interface, at which the processes of a group connect, during the block."""
    listening = socket.create_server((_HOST, 0))
    port = listening.getsockname()[1]
    store = dist.TCPStore(
        _HOST, port, is_master=True, wait_for_workers=False, timeout=_TIMEOUT, master_listen_fd=listening.detach()
    )
    yield port
    del store


@contextmanager
def join_process_group(place: Rank, device: torch.device) -> Iterator[ProcessGroup]:
    """Join the process group during the block.

    Args:
        place: number of this process, and where the processes connect.
        device: the device of this process.
    """
    if place.port is None:
        yield SINGLE_PROCESS
        return
    # All processes run on this machine, so the loopback interface is enough and no host name has to be resolved.
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
    dist.destroy_process_group()  # not after an error: it could wait for a dead process
