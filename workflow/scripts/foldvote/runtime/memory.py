"""Memory: how its lack shows itself, on a GPU and on a CPU; how to give it back; how much was used at most."""

import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")

# Parts of the texts of errors that say so, in lower case. cuDNN reports no engine where its working space did not fit;
# cuBLAS and cuDNN are not initialised where their handles did not.
_TEXTS = (
    "out of memory",  # CUDA, HIP, XPU, MPS, and NCCL, which repeats the text of CUDA
    "can't allocate memory",  # torch's allocator of the CPU
    "_alloc_failed",  # cuBLAS, cuDNN, cuSOLVER, cuSPARSE
    "_allocation_failed",  # cuDNN 9
    "unable to find an engine to execute this computation",
    "cublas_status_not_initialized",
    "cudnn_status_not_initialized",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the device, or of the machine, did not suffice.

    Only `torch.cuda`'s own allocator raises torch.OutOfMemoryError; libraries and the CPU raise a RuntimeError with a
    text. Try again with less only after the `except` block: until then the error's traceback holds the tensors.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).casefold() for text in _TEXTS)


def release_memory() -> None:
    """Give memory that torch keeps for later use back to the GPU; nothing happens without one."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory() -> dict[str, int]:
    """The most memory that this process has used, in bytes: `peak_host_bytes`, without its children, `peak_gpu_bytes`.

    On a GPU it is that of tensors on the current device. getrusage, which serves where Linux's own account is missing,
    may count the parent as well.
    """
    if _STATUS.is_file():
        host = (
            next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")) * 1024
        )
    else:
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"peak_host_bytes": host, "peak_gpu_bytes": gpu}
