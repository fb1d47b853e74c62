"""Batches are loaded in threads ahead of their use, in order, each item failing alone."""

from __future__ import annotations

import threading

import pytest
import torch
from monai.data import DataLoader, Dataset

from medimg3d.data.ahead_loader import AheadLoader
from medimg3d.data.load_ahead import load_ahead, loading_threads


def half(number: int) -> float:
    if number == 3:
        raise ValueError("three is odd")
    return number / 2


def test_items_come_in_order_with_what_was_loaded_and_errors_are_their_own():
    batches = [[0, 1, 2], [3, 4], [5]]
    found = [
        [(item, future.exception() or future.result()) for item, future in batch]
        for batch in load_ahead(batches, half, num_threads=3)
    ]
    assert [[item for item, _ in batch] for batch in found] == batches
    assert found[0] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert str(found[1][0][1]) == "three is odd"
    assert found[1][1] == (4, 2.0)
    assert found[2] == [(5, 2.5)]


def test_the_next_batch_is_loaded_while_the_caller_has_one():
    loaded = [threading.Event() for _ in range(3)]
    batches = load_ahead([[0], [1], [2]], lambda item: loaded[item].set(), num_threads=1, num_ahead=1)
    next(batches)
    assert loaded[1].wait(timeout=20)
    assert not loaded[2].is_set()
    batches.close()
    assert not loaded[2].is_set()


def test_a_caller_that_stops_leaves_no_thread_behind():
    before = threading.active_count()
    batches = load_ahead([[0, 1], [2], [4]], half)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_no_batch_gives_nothing_and_none_ahead_is_refused():
    assert list(load_ahead([], half)) == []
    with pytest.raises(ValueError, match="num_ahead must be at least 1, got 0"):
        load_ahead([[1]], half, num_ahead=0)


def test_threads_are_half_of_the_cores_and_at_most_eight(monkeypatch):
    for cores, threads in ((1, 1), (2, 1), (8, 4), (64, 8)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert loading_threads() == threads


def dataset(count: int = 7) -> Dataset:
    return Dataset([{"image": torch.full((1, 2), float(n))} for n in range(count)])


def test_the_loader_gives_the_batches_of_monais_own():
    own = [batch["image"] for batch in AheadLoader(dataset(), num_threads=3, batch_size=3)]
    stock = [batch["image"] for batch in DataLoader(dataset(), batch_size=3)]
    assert len(AheadLoader(dataset(), batch_size=3)) == len(own) == 3
    for one, other in zip(own, stock, strict=True):
        assert torch.equal(one, other)


def test_the_loader_can_be_gone_through_twice_and_left_early():
    loader = AheadLoader(dataset(), batch_size=2)
    for _ in loader:
        break
    assert len(list(loader)) == 4


def test_an_error_while_loading_is_raised_after_the_batches_before_it():
    def transform(item):
        if float(item["image"][0, 0]) == 4:
            raise OSError("cannot be read")
        return item

    broken = Dataset([{"image": torch.full((1, 2), float(n))} for n in range(7)], transform)
    batches = iter(AheadLoader(broken, batch_size=2))
    next(batches), next(batches)
    with pytest.raises(RuntimeError, match="applying transform"):
        next(batches)


def test_worker_processes_are_refused():
    with pytest.raises(ValueError, match="num_workers must be 0, got 2"):
        AheadLoader(dataset(), num_workers=2)
    assert len(AheadLoader(dataset(), num_workers=0)) == 7
