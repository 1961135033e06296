"""What a job may use, and how its processes share it."""

from dataclasses import replace

import pytest
import torch

from foldvote.config.runtime import Runtime
from foldvote.runtime.device import Device
from foldvote.runtime.resources import JobResources

CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)
GPU = replace(CPU, torch_device=torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("gpus", "threads", "processes", "each"), [(0, 8, 1, 8), (1, 8, 1, 8), (3, 8, 3, 2), (4, 2, 4, 1)]
)
def test_every_gpu_gets_a_process_and_its_part_of_the_threads(
    gpus: int, threads: int, processes: int, each: int
) -> None:
    resources = JobResources(gpus, threads, Runtime())
    assert resources.processes == processes
    assert resources.per_process == JobResources(gpus, each, Runtime())


def test_processes_on_a_cpu_are_those_configured() -> None:
    assert JobResources(0, 4, Runtime(cpu_processes=2)).processes == 2
    assert JobResources(1, 4, Runtime(cpu_processes=2)).processes == 1


@pytest.mark.parametrize(("threads", "device", "workers"), [(1, CPU, 0), (8, CPU, 1), (1, GPU, 1), (8, GPU, 7)])
def test_loader_processes_leave_the_network_a_thread(threads: int, device: Device, workers: int) -> None:
    assert JobResources(0, threads, Runtime()).workers(device) == workers
    assert JobResources(0, threads, Runtime(workers=5)).workers(device) == 5
