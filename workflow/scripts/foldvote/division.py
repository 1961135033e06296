"""How the processes that train one member share a batch. Imports nothing: the Snakefile checks it at every start."""

from collections.abc import Iterator


def parts_of(parts: int, processes: int) -> int:
    """In how many parts a batch goes through the net where several processes share it, equally many each.

    Args:
        parts: what `accumulate` or the memory asks for; it says how large one part may be.
        processes: that train the member together.
    """
    return -(-parts // processes) * processes


def division_faults(batch: int, parts: int, processes: int) -> Iterator[str]:
    """Why several processes cannot share batches of so many images, if they cannot; one process can always."""
    if processes > 1 and (batch % parts or batch // parts < 2):
        yield (
            f"batches of {batch} images do not divide into {parts} equal parts of 2 images or more, "
            f"{parts // processes} for each of {processes} processes; change batch_size or accumulate, or the number "
            "of processes (runtime.gpus_per_member, on a CPU runtime.cpu_processes)"
        )
