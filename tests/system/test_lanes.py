"""Laws of lanes: order, pieces in progress, and that abandoned work ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import pytest
from processes import no_new_threads

from bsmamba2.errors import ResourceError
from bsmamba2.system import lanes
from bsmamba2.system.lanes import Lane, Task, in_order

LONG_S = 20  # how long a test waits before it fails


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def join(name: str) -> None:
    """Waits for the threads to end, which happens just after their work has ended."""
    for thread in threads_of(name):
        thread.join(LONG_S)
    assert not threads_of(name)


def test_a_lane_runs_one_after_another_and_ends_its_thread():
    lane, order, busy = Lane("one"), [], threading.Lock()

    def work(number: int) -> int:
        assert busy.acquire(blocking=False)
        order.append(number)
        busy.release()
        return number**2

    tasks = [lane.submit(lambda number=number: work(number)) for number in range(50)]
    assert [task.result(LONG_S) for task in tasks] == [number**2 for number in range(50)]
    assert order == list(range(50))
    join("one")
    assert lane.submit(lambda: "again").result(LONG_S) == "again"


def test_a_lane_of_two_threads_runs_two_at_once_and_no_third():
    lane, both = Lane("two", 2), threading.Barrier(2, timeout=LONG_S)
    free = threading.Event()

    def meet() -> bool:
        both.wait()
        return free.wait(LONG_S)

    tasks = [lane.submit(meet) for _ in range(2)]
    third = lane.submit(lambda: True)
    assert len(threads_of("two")) == 2
    assert not third.done()
    free.set()
    assert all(task.result(LONG_S) for task in (*tasks, third))


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_so_many_pieces_are_begun_before_the_first_result(ahead: int):
    begun, most = 0, 0

    def pieces() -> Iterator[Task[int]]:
        nonlocal begun
        for number in range(9):
            begun += 1
            task: Task[int] = Task()
            task.set_result(number)
            yield task

    for number in in_order(pieces(), ahead):
        most = max(most, begun - number)
    assert (most, begun) == (ahead, 9)


def fail_at_two(lane: Lane, ran: list[int]) -> Iterator[Task[int]]:
    def work(number: int) -> int:
        ran.append(number)
        if number == 2:
            raise ValueError("piece 2")
        return number

    for number in range(9):
        yield lane.submit(lambda number=number: work(number))


def break_at_two(lane: Lane, ran: list[int]) -> Iterator[Task[int]]:
    for number in range(2):
        yield lane.submit(lambda number=number: ran.append(number) or number)
    raise ValueError("the source")


@pytest.mark.parametrize(("source", "words"), [(fail_at_two, "piece 2"), (break_at_two, "source")])
def test_an_error_comes_out_and_nothing_goes_on(
    source: Callable[[Lane, list[int]], Iterator[Task[int]]], words: str
):
    ran: list[int] = []
    with pytest.raises(ValueError, match=words):
        list(in_order(source(Lane("failing"), ran), 3))
    join("failing")
    assert len(ran) <= 5  # two more are begun than were asked for


def test_leaving_drops_waiting_work_and_waits_for_running_work():
    lane, started, free = Lane("left"), threading.Event(), threading.Event()
    ran: list[int] = []

    def work(number: int) -> None:
        if number == 1:
            started.set()
            threading.Timer(0.1, free.set).start()
            free.wait(LONG_S)
        ran.append(number)

    results = in_order((lane.submit(lambda n=n: work(n)) for n in range(9)), 4)
    next(results)
    assert started.wait(LONG_S)
    results.close()
    assert ran == [0, 1]
    join("left")


def test_a_lane_goes_on_with_the_threads_that_it_gets():
    lane, free = Lane("few", 2), threading.Event()
    first = lane.submit(lambda: free.wait(LONG_S))
    with no_new_threads():
        second = lane.submit(lambda: True)
    free.set()
    assert first.result(LONG_S)
    assert second.result(LONG_S)
    join("few")


def test_a_refused_thread_is_one_sentence_and_the_lane_can_be_used_again():
    lane = Lane("refused")
    with no_new_threads(), pytest.raises(ResourceError, match="refused another thread: "):
        lane.submit(lambda: True)
    assert lane.submit(lambda: True).result(LONG_S)
    join("refused")


def test_hanging_work_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lanes, "PATIENCE_S", 0.05)
    lane, started, free = Lane("hanging"), threading.Event(), threading.Event()
    task = lane.submit(lambda: started.set() or free.wait(LONG_S))
    assert started.wait(LONG_S)
    assert not task.cancel()
    threading.Timer(0.05, lane.close).start()
    with pytest.raises(CancelledError):  # though the work goes on
        task.result(LONG_S)
    assert threads_of("hanging")[0].daemon
    with pytest.raises(CancelledError):
        lane.submit(lambda: None)
    free.set()
    join("hanging")
