"""What is measured while a member trains: losses and time."""

import time

import pytest
import torch

from foldvote.training.monitor import LOOK_EVERY, MOST_BAD, MOST_SKIPPED, Clock, LossMonitor, timed


def test_the_monitor_adds_up_finite_losses_and_names_the_last_bad_ones() -> None:
    monitor = LossMonitor(1.0)
    for number in range(LOOK_EVERY):
        assert not monitor.due
        monitor.add(number, torch.tensor(0.5))
    assert monitor.due
    assert monitor.look(skips=False)
    assert monitor.total == 1.0 + LOOK_EVERY / 2
    assert monitor.counted == LOOK_EVERY
    monitor.add(90, torch.tensor(float("nan")))
    assert not monitor.look(skips=False)
    assert monitor.look(skips=True)
    assert monitor.counted == LOOK_EVERY
    monitor.add(91, torch.tensor(2.0))
    assert monitor.look(skips=False)
    assert monitor.counted == LOOK_EVERY + 1
    for number in range(MOST_BAD):
        monitor.add(100 + number, torch.tensor(float("inf")))
    assert not monitor.look(skips=True)
    assert monitor.bad == list(range(100, 100 + MOST_BAD))


def test_steps_that_are_skipped_for_ever_end_a_run() -> None:
    monitor = LossMonitor()
    for number in range(3 * MOST_SKIPPED):
        monitor.add(number, torch.tensor(0.5), skipped=number % MOST_SKIPPED > 0)
        assert monitor.look(skips=True)
    monitor.add(number + 1, torch.tensor(0.5), skipped=True)
    assert not monitor.look(skips=True)
    assert len(monitor.skipped) == MOST_SKIPPED


def test_a_lap_begins_where_the_one_before_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock()
    now[0] = 103.0
    assert clock.elapsed() == 3 == clock.lap()
    now[0] = 104.5
    assert clock.elapsed() == 1.5


def test_waiting_counts_the_time_of_the_next_item_and_not_that_of_its_use(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def loaded():
        for seconds in (3.0, 0.5):
            now[0] += seconds
            yield seconds
        now[0] += 7  # the end is no item

    waited: list[float] = []
    for _ in timed(loaded(), waited.append):
        now[0] += 20
    assert waited == [3.0, 0.5]
