"""Pieces of work in several threads, each with one of torch's."""

from __future__ import annotations

import threading

import pytest
import torch

from medimg3d.inference.side_by_side import SideBySide

PATIENCE_S = 30


def test_pieces_run_at_the_same_time_and_are_all_done_when_run_returns():
    meeting = threading.Barrier(3, timeout=PATIENCE_S)
    done: list[int] = []

    def piece(number: int) -> None:
        meeting.wait()
        done.append(number)

    with SideBySide(3) as pool:
        pool.run([lambda number=number: piece(number) for number in range(6)])
        assert sorted(done) == list(range(6))


def test_torch_has_one_thread_inside_and_as_many_as_before_outside_and_afterwards():
    before, inside = torch.get_num_threads(), []
    with SideBySide(2) as pool:
        pool.run([lambda: inside.append(torch.get_num_threads())] * 4)
        assert torch.get_num_threads() == before
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (set(inside), later, torch.get_num_threads()) == ({1}, [before], before)


def test_one_worker_is_the_callers_thread():
    seen = []
    with SideBySide(1) as pool:
        pool.run([lambda: seen.append(threading.current_thread())])
    assert seen == [threading.current_thread()]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_reaches_the_caller_and_nothing_goes_on_behind(workers):
    def fail() -> None:
        raise ValueError("a piece failed")

    with SideBySide(workers) as pool, pytest.raises(ValueError, match="a piece failed"):
        pool.run([fail, *[lambda: None] * 20])
