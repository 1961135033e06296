"""Errors in the middle of a training, said in words."""

import pytest

from foldvote.errors import UserError
from foldvote.training.failures import as_raised, memory_advice


def test_an_error_of_a_loader_process_is_told_without_its_traceback() -> None:
    text = "Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
    wrapped = UserError(f"{text}foldvote.errors.UserError: a.arrow: damaged; delete it\nb.arrow: damaged\n")
    assert as_raised(wrapped).faults == ("a.arrow: damaged; delete it", "b.arrow: damaged")
    own = UserError("a.csv: is wrong", "b.csv: is wrong")
    assert as_raised(own) is own


@pytest.mark.parametrize(("parts", "next_parts"), [(1, 2), (2, 4), (4, 4)])
def test_advice_on_memory_proposes_more_parts_as_long_as_two_images_are_in_each(parts: int, next_parts: int) -> None:
    advice, told = memory_advice(RuntimeError("CUDA out of memory\nmore"), 8, parts)
    assert told == next_parts
    assert (f"in {next_parts} parts" in advice) == (next_parts > parts)
    assert advice.startswith("out of memory (CUDA out of memory); ") and "\n" not in advice
    assert "accumulate: 2" in advice
