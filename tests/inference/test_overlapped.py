"""Threads are made to meet by events: no test waits for time to pass."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from medimg3d.inference.overlapped import overlapped

PATIENCE_S = 30  # a test that hangs fails instead


def line(items, *, load=str, work=lambda item, loaded: loaded * 2, save=lambda item, made: made, depth=1):
    return overlapped(items, load=load, work=work, save=save, depth=depth)


def stage_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(("load_", "save_"))]


class Volume:
    """Something whose life can be followed."""


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_every_item_goes_through_the_stages_in_order(count, depth):
    done = list(line(range(count), depth=depth))
    assert [item for item, _ in done] == list(range(count))
    assert [outcome.result for _, outcome in done] == [str(n) * 2 for n in range(count)]
    assert all(outcome.error is None and outcome.stage == "" for _, outcome in done)
    assert not stage_threads()


def test_next_load_and_previous_save_run_while_work_does():
    third_loads, first_saves = threading.Event(), threading.Event()
    seen = []

    def load(item):
        if item == 2:
            third_loads.set()
        return item

    def work(item, loaded):
        if item == 1:  # both must come while this holds the caller's thread
            seen.append(third_loads.wait(PATIENCE_S))
            seen.append(first_saves.wait(PATIENCE_S))
        return loaded

    def save(item, made):
        if item == 0:
            first_saves.set()

    list(line(range(4), load=load, work=work, save=save))
    assert seen == [True, True]


def test_work_runs_in_the_callers_thread_and_the_others_do_not():
    threads = {}

    def note(stage):
        return lambda *_: threads.setdefault(stage, threading.current_thread())

    list(line([0], load=note("load"), work=note("work"), save=note("save")))
    assert threads["work"] is threading.current_thread()
    assert len(set(threads.values())) == 3


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_more_than_depth_items_are_drawn_ahead_of_the_one_in_work(depth):
    drawn = []
    ahead = []

    def items():
        for n in range(8):
            drawn.append(n)
            yield n

    def work(item, loaded):
        ahead.append(len(drawn) - item - 1)

    list(line(items(), work=work, depth=depth))
    assert max(ahead) == depth


@pytest.mark.parametrize("depth", [1, 2])
def test_no_more_than_depth_items_are_being_saved(depth):
    made, saved, most = 0, 0, 0
    may_save = threading.Event()

    def work(item, loaded):
        nonlocal made, most
        most = max(most, made - saved)  # of those handed on, as work on the next one begins
        made += 1
        if made == depth + 1:
            may_save.set()

    def save(item, _):
        nonlocal saved
        assert may_save.wait(PATIENCE_S)
        saved += 1

    assert all(outcome.error is None for _, outcome in line(range(6), work=work, save=save, depth=depth))
    assert most <= depth


@pytest.mark.parametrize("stage", ["load", "work", "save"])
def test_an_error_belongs_to_its_item_and_the_others_go_on(stage):
    def failing(item, value=None):
        if item == 1:
            raise OSError("disk full")
        return item

    done = dict(line(range(3), **{stage: failing}))
    assert list(done) == [0, 1, 2]
    assert isinstance(done[1].error, OSError)
    assert done[1].stage == stage
    assert done[1].result is None
    assert list(done[1].seconds) == ["load", "work", "save"][: ["load", "work", "save"].index(stage) + 1]
    assert done[0].error is None
    assert done[2].error is None


def test_seconds_of_every_stage_are_measured(monkeypatch):
    ticks = threading.local()

    def clock():
        ticks.value = getattr(ticks, "value", 0) + 5
        return ticks.value

    monkeypatch.setattr("medimg3d.inference.overlapped.time.perf_counter", clock)
    ((_, outcome),) = line([0])
    assert outcome.seconds == {"load": 5, "work": 5, "save": 5}


def test_interrupt_in_work_ends_the_running_save_begins_nothing_and_goes_on():
    save_runs, may_end = threading.Event(), threading.Event()
    loaded, worked, saved, given = [], [], [], []

    def load(item):
        loaded.append(item)
        return item

    def work(item, _):
        if item == 2:
            assert save_runs.wait(PATIENCE_S)
            may_end.set()
            raise KeyboardInterrupt
        worked.append(item)

    def save(item, _):
        if item == 1:
            save_runs.set()
            assert may_end.wait(PATIENCE_S)
        saved.append(item)

    def draw():
        for item, outcome in line(range(9), load=load, work=work, save=save):
            assert outcome.error is None
            given.append(item)

    with pytest.raises(KeyboardInterrupt):
        draw()
    assert worked == [0, 1]
    assert saved == [0, 1]
    assert given == [0, 1]  # what is on disk is known to the caller
    assert set(loaded) <= {0, 1, 2, 3}
    assert not stage_threads()


def test_interrupt_while_the_last_save_is_waited_for_still_gives_its_item(monkeypatch):
    begun, may_end = threading.Event(), threading.Event()
    given = []

    def interrupted(futures):
        assert begun.wait(PATIENCE_S)  # one that has not begun is cancelled
        may_end.set()
        raise KeyboardInterrupt

    def save(item, made):
        begun.set()
        may_end.wait(PATIENCE_S)

    def draw():
        for item, _ in line([0], save=save):
            given.append(item)

    monkeypatch.setattr("medimg3d.inference.overlapped.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw()
    assert given == [0]


def test_closing_early_waits_for_the_running_save_and_ends_the_threads():
    saved = []
    outcomes = line(range(9), save=lambda item, made: saved.append(item))
    assert next(outcomes)[0] == 0
    outcomes.close()
    count = len(saved)
    assert not stage_threads()
    assert saved == list(range(count))
    assert list(outcomes) == []


def test_an_iterator_never_drawn_from_starts_no_thread():
    loaded = []
    outcomes = line(range(3), load=loaded.append)
    del outcomes
    assert loaded == []
    assert not stage_threads()


def test_an_error_while_drawing_items_comes_after_the_items_before_it():
    def items():
        yield 0
        yield 1
        raise OSError("no more")

    given = []

    def draw():
        for item, _ in line(items()):
            given.append(item)

    with pytest.raises(OSError, match="no more"):
        draw()
    assert given in ([], [0])  # 1 was loaded ahead, and nothing new begins
    assert not stage_threads()


@pytest.mark.parametrize("stage", ["work", "save"])
def test_errors_that_are_kept_hold_no_volume(stage):
    volumes = []

    def load(item):
        volume = Volume()
        volumes.append(weakref.ref(volume))
        return volume

    def fail(item, volume):
        try:
            raise KeyError("cause")
        except KeyError as err:
            raise OSError("disk full") from err

    stages = {"work": lambda item, volume: volume, stage: fail}
    kept = list(line(range(3), load=load, **stages))
    gc.collect()
    assert [volume() for volume in volumes] == [None] * 3
    assert all(outcome.error.__traceback__ is not None for _, outcome in kept)


def test_volumes_are_let_go_as_their_items_are_done():
    alive_at_once = []
    volumes = weakref.WeakSet()

    def load(item):
        volume = Volume()
        volumes.add(volume)
        return volume

    def work(item, volume):
        alive_at_once.append(len(volumes))
        return item

    list(line(range(6), load=load, work=work))
    assert max(alive_at_once) <= 2  # the one in work and the one loaded ahead


def test_depth_below_one_is_refused():
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        line([], depth=0)


def test_depth_is_the_number_of_items_loaded_at_once():
    meeting = threading.Barrier(3, timeout=PATIENCE_S)  # three loads must be under way at the same time

    def load(item):
        meeting.wait()
        return item

    assert [outcome.result for _, outcome in line(range(6), load=load, work=lambda _, n: n, depth=3)] == list(
        range(6)
    )
