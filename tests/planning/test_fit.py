"""Fitting to the memory, with made-up measurements."""

from __future__ import annotations

from math import prod

import pytest
from facts import facts, of_classes

from medimg3d.data.datalist import Datalist
from medimg3d.errors import DataError
from medimg3d.planning.fit import fit, ladder
from medimg3d.planning.planner import draft_plan
from medimg3d.planning.settings import PlanSettings
from medimg3d.planning.trial import Measured

BIG = facts(shapes=((160, 160, 160),) * 10)


def need(plan) -> float:
    """0.5 GB, and 1 GB a million voxels of a batch at 16 filters."""
    return 0.5 + plan.batch_size * prod(plan.topology.patch) / 1e6 * plan.width / 16


def draft(data=BIG, **settings):
    return draft_plan(data, Datalist(), PlanSettings(**settings))


def run(plan, limit, *, fill=True, measured=need):
    said = []
    measure = (
        None if measured is None else lambda own: Measured(measured(own), 0.6, 0.3, 1.0, validate_gb=0.4)
    )
    fitted = fit(plan, limit_gb=limit, estimate=need, measure=measure, fill=fill, say=said.append)
    return fitted, said


def test_the_ladder_grows():
    needs = [rung.estimate_gb for rung in ladder(draft(memory_gb=8), estimate=need)]
    assert needs == sorted(needs)
    assert len(needs) > 10


def test_between_patches_that_are_far_apart_lie_larger_batches():
    rungs = [rung.plan for rung in ladder(draft(memory_gb=8, network="swinunetr"), estimate=need)]
    sizes = [(one.topology.patch, one.batch_size) for one in rungs if one.batch_size < 4]
    at = sizes.index(((32, 32, 64), 2))
    assert sizes[at + 1] == (sizes[at][0], 3)
    assert prod(sizes[at + 2][0]) == 2 * prod(sizes[at][0])
    assert {one.topology.patch for one in rungs if one.width > 12} == {(160, 160, 160)}


def test_between_patches_that_are_close_lie_none():
    rungs = [rung.plan for rung in ladder(draft(memory_gb=8), estimate=need)]
    batches = {
        one.batch_size for one in rungs if prod(one.topology.patch) < 0.6 * prod(rungs[-1].topology.patch)
    }
    assert batches == {2}


@pytest.mark.parametrize("limit", [1.5, 3.0, 8.0])
def test_what_is_measured_lies_within_a_fifth_under_the_figure(limit):
    plan, _ = run(draft(memory_gb=limit), limit)
    assert 0.8 * limit <= plan.measured[-1]["train_gb"] <= limit


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_an_estimate_that_is_off_by_two_is_corrected_by_measurement(factor):
    plan, said = run(draft(memory_gb=4), 4.0, measured=lambda own: factor * need(own))
    assert 0.8 * 4 <= plan.measured[-1]["train_gb"] <= 4
    assert len(said) <= 6


def test_without_a_figure_the_draft_stays_where_it_fits():
    plan = draft()
    fitted, said = run(plan, 100.0, fill=False)
    assert (fitted.patch_size, fitted.batch_size) == (plan.patch_size, plan.batch_size)
    assert len(said) == 1


def test_without_a_figure_the_draft_shrinks_where_it_does_not_fit():
    plan = draft()
    fitted, _ = run(plan, 1.0, fill=False)
    assert prod(fitted.patch_size) < prod(plan.patch_size)
    assert fitted.measured[-1]["train_gb"] <= 1.0


def test_what_the_user_set_stays():
    plan, _ = run(draft(memory_gb=4, patch_size=(64, 64, 64), batch_size=3), 4.0)
    assert plan.patch_size == (64, 64, 64)
    assert plan.batch_size == 3


def test_a_figure_that_nothing_fits_is_refused():
    with pytest.raises(
        DataError, match=r"Give more --memory-gb, a smaller --patch, or a coarser --spacing\."
    ):
        run(draft(memory_gb=0.4), 0.4)


def test_what_is_advised_against_too_little_memory_fits_the_task():
    with pytest.raises(
        DataError, match=r"Give more --memory-gb, a smaller --image-size, or a smaller --batch\."
    ):
        run(draft(of_classes(), memory_gb=0.4), 0.4)


def test_why_there_is_no_figure_is_told():
    slow = Measured(None, None, problem="took more than 15 minutes")
    said = []
    with pytest.raises(DataError, match="filters: took more than 15 minutes, more than 8 GB"):
        fit(draft(), limit_gb=8.0, estimate=need, measure=lambda _: slow, fill=True, say=said.append)
    assert said[0].endswith("filters: took more than 15 minutes")


def test_windows_are_halved_until_the_prediction_fits():
    plan = draft(memory_gb=2)

    def measure(own):
        return Measured(need(own), 1.0 * own.windows_per_batch, 0.3, 1.0, validate_gb=0.5)

    fitted = fit(plan, limit_gb=2.0, estimate=need, measure=measure, fill=True, say=lambda _: None)
    assert fitted.windows_per_batch == 2
    assert fitted.measured[-1]["predict_gb"] == 2.0


def test_windows_are_halved_until_the_validation_of_the_largest_image_fits():
    plan = draft(memory_gb=2)
    image_gb = plan.validated_image_gb
    assert image_gb == pytest.approx(4 * 160**3 * (3 * len(plan.output_names) + 2) / 1e9)

    def measure(own):
        return Measured(need(own), 0.5, 0.3, 1.0, validate_gb=0.9 * own.windows_per_batch)

    fitted = fit(plan, limit_gb=2.0, estimate=need, measure=measure, fill=True, say=lambda _: None)
    assert fitted.windows_per_batch == 2
    assert fitted.measured[-1]["validate_gb"] == pytest.approx(1.8 + image_gb)
    assert fitted.measured[-1]["predict_gb"] == 0.5


def test_estimate_alone_picks_a_size_without_a_trial():
    plan, said = run(draft(memory_gb=4), 4.0, measured=None)
    assert said == []
    assert plan.measured == ()
    assert 0.7 * 4 <= need(plan) <= 4


def test_a_classifier_grows_by_its_batch():
    many = of_classes(
        class_counts={"well": 100, "ill": 100},
        num_cases=200,
        num_patients=200,
        shapes=((100, 80),) * 200,
        spacings_mm=(None,) * 200,
    )
    plan, _ = run(draft(many, memory_gb=1), 1.0)
    assert plan.batch_size > 16
