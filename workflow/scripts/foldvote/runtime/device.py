"""Everything that depends on the device: its choice, precision and memory layout. CPU and CUDA share one code path."""

import os
from dataclasses import dataclass

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # needed by deterministic cuBLAS, read when CUDA starts

import torch
from torch import nn

from foldvote.errors import UserError
from foldvote.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from foldvote.runtime.job_log import log


@dataclass(frozen=True)
class Device:
    """Where and how a network runs.

    Attributes:
        torch_device: cpu or cuda.
        dtype: type of matrix products and convolutions; float32 switches autocast off.
        layout: memory layout of images and weights.
        group: the processes that train together, each on a device of its own.
    """

    torch_device: torch.device
    dtype: torch.dtype
    layout: torch.memory_format
    group: ProcessGroup = SINGLE_PROCESS

    @property
    def name(self) -> str:
        """The name of the hardware; with the number of processes where there are several."""
        name = torch.cuda.get_device_name(self.torch_device) if self.torch_device.type == "cuda" else "CPU"
        return name if self.group.size == 1 else f"{self.group.size} x {name}"

    def autocast(self) -> torch.autocast:
        """The context in which the forward pass runs."""
        return torch.autocast(self.torch_device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, which does nothing unless the dtype is float16."""
        return torch.amp.GradScaler(self.torch_device.type, enabled=self.dtype == torch.float16)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network to the device, and those of its weights to the layout that have one: tensors of 4 dimensions.

        torch's own conversion takes a tensor of 5 dimensions for one, and refuses it.
        """
        model = model.to(self.torch_device)
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.dim() == 4:
                tensor.data = tensor.data.to(memory_format=self.layout)
        return model

    def normalise(self, batch: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        """Turn uint8 images (batch, height, width, 3) into normalised float32 (batch, 3, height, width) on the device.

        Args:
            batch: the images, on any device.
            mean: mean of the network's inputs, which are in 0..1, shape (1, 3, 1, 1), on the device.
            std: standard deviation of these, of the same shape.
        """
        moved = batch.to(self.torch_device, non_blocking=True).permute(0, 3, 1, 2)
        return ((moved.float().div_(255) - mean) / std).contiguous(memory_format=self.layout)


def choose_device(precision: str, channels_last: bool | None, gpus: int, threads: int, rank: int = 0) -> Device:
    """Choose the device of this process, and configure torch for it.

    Args:
        precision: "auto", "fp32", "bf16" or "fp16"; "auto" takes the fastest precision that the device supports well.
        channels_last: whether images and weights are stored channels last; None: only on a GPU.
        gpus: number of GPUs granted to the job; the CPU is used if this is 0 or no GPU is found.
        threads: number of CPU threads of an operation.
        rank: number of this process's GPU among those of the job.

    Raises:
        UserError: if the GPU is missing or too old for this build of torch, or the device lacks the precision.
    """
    torch.set_num_threads(max(threads, 1))
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    cuda = gpus > 0 and torch.cuda.is_available()
    if cuda:
        _check_gpu(rank)
        torch.cuda.set_device(rank)
    elif gpus > 0:
        log(
            "warning: a GPU was granted, but torch can use none (an old driver, or a torch built for CPUs): "
            "running on the CPU"
        )
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    last = channels_last if channels_last is not None else cuda
    return Device(device, _dtype(precision, device), torch.channels_last if last else torch.contiguous_format)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    cuda = device.type == "cuda"
    if precision == "auto":
        if not cuda:
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if precision == "fp16" and not cuda:
        raise UserError("precision: fp16 needs a GPU; use precision: auto, bf16 or fp32 on a CPU")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _check_gpu(index: int) -> None:
    """Raise an error if a GPU is missing or too old for this build of torch."""
    if index >= torch.cuda.device_count():
        raise UserError(
            f"GPU {index + 1} of those that were granted is not there: torch sees {torch.cuda.device_count()}; "
            "ask for as many with --resources gpu=N"
        )
    major, minor = torch.cuda.get_device_capability(index)
    built = [
        int(name.removeprefix("sm_").rstrip("af")) for name in torch.cuda.get_arch_list() if name.startswith("sm_")
    ]
    if built and major * 10 + minor < min(built):
        raise UserError(
            f"{torch.cuda.get_device_name(index)} (compute {major}.{minor}) is too old for torch {torch.__version__} "
            f"(built for {min(built) / 10:.1f} and up); install one built for CUDA 12.6, or use --resources gpu=0"
        )
