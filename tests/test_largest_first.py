"""Of threads that wait for their turn, the one with the largest task goes first; a wide task runs alone."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from autopilothq.machine import LargestFirst
from autopilothq.warehouses import duckdb
from waiting import wait_for


class Tasks:
    """Tasks that record when they begin, and run until they are told to end."""

    def __init__(self, most: int) -> None:
        self.queue = LargestFirst(most)
        self.begun: list[float] = []
        self.ends: dict[float, Event] = {}

    def run(self, size: float, alone: bool) -> None:
        with self.queue.turn(size, self.queue.most if alone else 1):
            self.begun.append(size)
            assert self.ends[size].wait(30)


def waits(tasks: Tasks, number: int) -> None:
    wait_for(lambda: len(tasks.queue._waiting) == number)


@pytest.mark.parametrize("alone", [set(), {3.0}])
def test_the_largest_task_comes_first_and_a_wide_one_alone(alone: set[float]) -> None:
    tasks = Tasks(2)
    sizes = [1.0, 2.0, 0.5, 3.0, 2.5]
    tasks.ends = {size: Event() for size in sizes}
    with ThreadPoolExecutor(len(sizes)) as pool:
        done = {}
        for number, size in enumerate(sizes):
            done[size] = pool.submit(tasks.run, size, size in alone)
            waits(tasks, max(0, number - 1))
        assert tasks.begun == [1.0, 2.0]
        tasks.ends[1.0].set()
        done[1.0].result(30)
        if alone:  # it also waits for the other task to end, and no smaller one overtakes it
            waits(tasks, 3)
            assert tasks.begun == [1.0, 2.0]
            tasks.ends[2.0].set()
            waits(tasks, 2)
            assert tasks.begun == [1.0, 2.0, 3.0]
        waits(tasks, 2)
        assert tasks.begun[2] == 3.0
        for size in (3.0, 2.0, 2.5, 0.5):
            tasks.ends[size].set()
            done[size].result(30)
    assert sorted(tasks.begun[2:]) == [0.5, 2.5, 3.0]


def test_a_task_that_fails_gives_its_turn_back() -> None:
    queue = LargestFirst(1)
    with pytest.raises(ValueError, match="no"), queue.turn(1):
        raise ValueError("no")
    with queue.turn(1, queue.most):
        pass


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_waits_for_no_thread_of_its_parent() -> None:
    queue = duckdb._queue  # this queue outlives a load
    with queue.turn(1, queue.most):
        if not (child := os.fork()):
            signal.alarm(30)
            with queue.turn(1):
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_nobody_waits_behind_a_wait_that_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = LargestFirst(1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(queue._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            queue.turn(5).__enter__()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(queue.turn(1).__enter__).result(10) is None
