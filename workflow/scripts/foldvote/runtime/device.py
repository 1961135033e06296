"""Everything that depends on the device: its choice, precision and memory layout. CPU and CUDA share one code path."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from foldvote.errors import UserError
from foldvote.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from foldvote.runtime.job_log import log

_CUBLAS_WORKSPACES = (":4096:8", ":16:8")  # with which cuBLAS is deterministic; the first is the faster one
_PIXELS_PER_THREAD = 2**19  # in a batch of predictions on a CPU; larger activations are new pages each time
_NOT_DETERMINISTIC = re.compile(
    r"(\S+) does not have a deterministic implementation|operation is not deterministic because it uses (CuBLAS)"
)


@dataclass(frozen=True)
class Device:
    """Where and how a network runs.

    Attributes:
        torch_device: cpu or cuda.
        dtype: type of matrix products and convolutions; float32 switches autocast off.
        layout: memory layout of images and weights.
        group: the processes that train together, each on a device of its own.
        reproducible: whether the same computation gives the same bytes again.
        prediction_layout: memory layout of the images of predictions, whatever that of the weights.
    """

    torch_device: torch.device
    dtype: torch.dtype
    layout: torch.memory_format
    group: ProcessGroup = SINGLE_PROCESS
    reproducible: bool = True
    prediction_layout: torch.memory_format = torch.channels_last

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

    def prediction_batch(self, largest: int, height: int, width: int) -> int:
        """The number of images to predict at once.

        On a CPU it is halved as long as it is even and its images have more pixels than are fast. So it divides the
        largest number, and depends on nothing but these numbers and that of the threads.

        Args:
            largest: the number that must not be exceeded.
            height: height of the images in pixels.
            width: width of the images in pixels.
        """
        if self.torch_device.type == "cpu":
            most = _PIXELS_PER_THREAD * torch.get_num_threads()
            while largest % 2 == 0 and largest * height * width > most:
                largest //= 2
        return largest

    def normalise(
        self,
        batch: torch.Tensor,
        mean: torch.Tensor,
        std: torch.Tensor,
        layout: torch.memory_format | None = None,
    ) -> torch.Tensor:
        """Turn uint8 images (batch, height, width, 3) into normalised float32 (batch, 3, height, width) on the device.

        Args:
            batch: the images, on any device.
            mean: mean of the network's inputs, which are in 0..1, shape (1, 3, 1, 1), on the device.
            std: standard deviation of these, of the same shape.
            layout: memory layout of the result; None: that of the device.
        """
        moved = batch.to(self.torch_device, non_blocking=True).permute(0, 3, 1, 2)
        return ((moved.float().div_(255) - mean) / std).contiguous(memory_format=layout or self.layout)


def choose_device(
    precision: str, channels_last: bool | None, gpus: int, threads: int, rank: int = 0, reproducible: bool = True
) -> Device:
    """Choose the device of this process, and configure torch for it. Called before anything runs on a GPU.

    Args:
        precision: "auto", "fp32", "bf16" or "fp16"; "auto" takes the fastest precision that the device supports well.
        channels_last: whether images and weights are stored channels last; None: on a GPU, and the images of
            predictions on a CPU, where every net is faster with it.
        gpus: number of GPUs granted to the job; 0 takes the CPU.
        threads: number of CPU threads of an operation.
        rank: number of this process's GPU among those of the job.
        reproducible: whether a GPU must give the same bytes again, at the cost of speed; a CPU always does.

    Raises:
        UserError: if a granted GPU is missing, cannot be used or is too old for this build of torch, or if the device
            lacks the precision.
    """
    torch.set_num_threads(max(threads, 1))
    _configure_torch(gpus > 0, reproducible)
    device = _usable_gpu(rank) if gpus > 0 else torch.device("cpu")
    last = channels_last if channels_last is not None else gpus > 0
    layout = torch.channels_last if last else torch.contiguous_format
    return Device(
        device,
        _dtype(precision, device),
        layout,
        reproducible=reproducible or gpus == 0,
        prediction_layout=torch.contiguous_format if channels_last is False else torch.channels_last,
    )


@contextmanager
def name_nondeterminism() -> Iterator[None]:
    """Turn torch's refusal of an operation that is not deterministic into an error that names the key to set.

    Raises:
        UserError: if the block uses such an operation in reproducible mode.
    """
    try:
        yield
    except RuntimeError as error:
        found = _NOT_DETERMINISTIC.search(str(error))
        if found is None:
            raise
        raise UserError(
            f"{found[1] or found[2]} has no deterministic form on a GPU, and this net needs it: set "
            "runtime.reproducible: false (bytes may differ from run to run), choose another net, or train on the CPU"
        ) from error


def _configure_torch(cuda: bool, reproducible: bool) -> None:
    """Set torch's global switches. On a GPU all of them have two positions; on a CPU only the exact one is used.

    Reproducible, an operation without a deterministic form is refused. Only then do the attention kernels take their
    deterministic backward pass: if torch shall merely warn, they do not, although they have one. The kernels of
    torch.compile are then chosen without a clock.
    """
    exact = reproducible or not cuda
    if cuda and exact and os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in _CUBLAS_WORKSPACES:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = _CUBLAS_WORKSPACES[0]
    torch.use_deterministic_algorithms(exact, warn_only=not cuda)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = not exact
    if cuda:
        fp32 = "ieee" if exact else "tf32"
        for operations in (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn):
            operations.fp32_precision = fp32
        torch.backends.cuda.enable_cudnn_sdp(not exact)  # the one attention kernel without a deterministic form
        if not exact:
            log("runtime.reproducible: false: fast kernels and TF32; the bytes may differ from run to run")


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    cuda = device.type == "cuda"
    if precision == "auto":
        if not cuda:
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if precision == "fp16" and not cuda:
        raise UserError("precision: fp16 needs a GPU; use precision: auto, bf16 or fp32 on a CPU")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _usable_gpu(index: int) -> torch.device:
    """The GPU of this number among those of the job.

    Raises:
        UserError: if it is missing, too old for this build of torch, or refuses to compute.
    """
    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        raise UserError(
            f"a GPU was granted, but torch can use none (torch {torch.__version__}, CUDA_VISIBLE_DEVICES: {visible}): "
            "the driver is too old, torch is built for CPUs, or the id is wrong; `foldvote doctor` looks; "
            "--resources gpu=0 trains on the CPU (on a cluster: no `gpu` in the profile)"
        )
    _check_gpu(index)
    device = torch.device("cuda", index)
    try:
        torch.cuda.set_device(index)
        _compute(device)
    except RuntimeError as error:
        raise UserError(
            f"{torch.cuda.get_device_name(index)} was granted, but cannot be used ({str(error).splitlines()[0]}); "
            "nvidia-smi shows who holds it; --resources gpu=0 trains on the CPU"
        ) from error
    return device


def _compute(device: torch.device) -> None:
    """Compute something small: a GPU that another process has to itself, or that has no kernels, refuses it."""
    torch.ones(1, device=device).add_(1).item()


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
