"""Into which parts a batch divides: for the memory, among processes, and into the shots of its groups."""

from collections.abc import Iterator


def parts_of(parts: int, processes: int) -> int:
    """The number of parts that a batch is divided into where several processes share it: a multiple of `processes`.

    Args:
        parts: as `accumulate` or the memory demands; no part becomes larger than with this number.
        processes: number of processes that train the member together.
    """
    return -(-parts // processes) * processes


def fitting_parts(parts: int, batch: int) -> int:
    """The number of parts for a batch of so few images that `parts` would not leave two in each: batch normalisation
    has no variance of one image.

    Args:
        parts: as `accumulate` demands.
        batch: number of images in a batch; a training on fewer images than `batch_size` has smaller ones.
    """
    return min(parts, max(batch // 2, 1))


def division_faults(batch: int, parts: int, processes: int, shots: int | None = None) -> Iterator[str]:
    """Why several processes cannot share a batch, if they cannot; one process can always take it whole.

    Args:
        batch: number of images in a batch.
        parts: number of parts that it is divided into, as `parts_of` gives it.
        processes: number of processes that train the member together.
        shots: number of images of one group that stay in one process (`group_shots`); None: any may be parted.
    """
    if processes > 1 and (batch % parts or batch // parts < 2):
        yield (
            f"batches of {batch} images do not divide into {parts} equal parts of 2 images or more, "
            f"{parts // processes} for each of {processes} processes; change batch_size or accumulate, or the number "
            "of processes (runtime.gpus_per_member, on a CPU runtime.cpu_processes)"
        )
    elif processes > 1 and shots and batch // processes % shots:
        yield (
            f"batches of {batch} images give each of {processes} processes {batch // processes}, which cut the "
            f"{shots} images of a group (group_shots); change batch_size or group_shots, or the number of processes "
            "(runtime.gpus_per_member, on a CPU runtime.cpu_processes)"
        )


def accumulation_faults(batch: int, accumulate: int, shots: int | None, draws: bool) -> Iterator[str]:
    """Why a batch does not divide into the parts and the shots of groups that a recipe asks for.

    Args:
        batch: number of images in a batch.
        accumulate: number of parts.
        shots: number of images of one group in a batch (`group_shots`); None: groups do not matter.
        draws: whether a sampler draws the images one by one.
    """
    if batch % accumulate or batch // accumulate < 2:
        yield (
            f"accumulate {accumulate} does not cut batch_size {batch} into equal parts of 2 images or more; change one"
        )
    elif shots and batch // accumulate % shots:
        part = f"batch_size {batch}" if accumulate == 1 else f"a part of batch_size {batch} (accumulate {accumulate})"
        yield f"group_shots {shots} does not divide {part}; change one"
    if shots and draws:
        yield "group_shots and sampler are two ways to choose the images of a batch; set one of them"
