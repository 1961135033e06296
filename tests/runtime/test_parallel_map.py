"""Worker processes: results in order, errors with all their faults, nothing left running."""

import multiprocessing
import os
from collections.abc import Iterator
from functools import partial

import pytest

from foldvote.errors import UserError
from foldvote.runtime.parallel_map import map_processes, stream_processes


def tripled(offset: int, number: int) -> int:
    return 3 * number + offset


def refuses(number: int) -> int:
    if number == 17:
        raise UserError("first fault", "second fault")
    return number


def dies(number: int) -> int:
    if number == 17:
        os._exit(9)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_whatever_the_workers(workers: int) -> None:
    assert list(map_processes(partial(tripled, 1), range(450), workers, "tripling")) == [3 * n + 1 for n in range(450)]
    assert list(map_processes(partial(tripled, 1), [], workers, "tripling")) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_workers_refusal_arrives_with_all_its_faults(workers: int) -> None:
    with pytest.raises(UserError) as error:
        list(map_processes(refuses, range(40), workers, "reading", worth=20))
    assert error.value.faults == ("first fault", "second fault")


def test_f44_a_worker_that_dies_is_told_and_nothing_hangs() -> None:
    with pytest.raises(UserError, match="reading: a worker process was killed, for want of memory perhaps"):
        list(map_processes(dies, range(40), 2, "reading", worth=20))


def test_a_caller_that_stops_early_stops_the_workers() -> None:
    results: Iterator[int] = map_processes(partial(tripled, 0), range(1000), 2, "tripling")
    assert next(results) == 0
    results.close()
    assert not [child for child in multiprocessing.active_children() if child.is_alive() and "Process" in child.name]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_takes_items_as_its_results_are_taken_and_keeps_their_order(workers: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(3_000):
            taken += 1
            yield number

    stream = stream_processes(partial(tripled, 1), items(), 3_000, workers, ahead=100, what="tripling")
    for number in range(3_000):
        assert next(stream) == 3 * number + 1
        assert taken <= number + 120
    assert list(stream) == []
    assert list(stream_processes(partial(tripled, 1), [], 0, workers, ahead=8, what="tripling")) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_ends_with_a_workers_refusal_or_death(workers: int) -> None:
    with pytest.raises(UserError) as error:
        list(stream_processes(refuses, range(400), 400, workers, ahead=8, what="reading"))
    assert error.value.faults == ("first fault", "second fault")
    if workers > 1:
        with pytest.raises(UserError, match="reading: a worker process was killed"):
            list(stream_processes(dies, range(400), 400, workers, ahead=8, what="reading"))
    assert not multiprocessing.active_children()
