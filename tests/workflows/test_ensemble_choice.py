from dataclasses import replace

import pytest

from medimg3d.bundle.label_rules import ALL_LABELS, LabelRule, tried_rules
from medimg3d.workflows.ensemble_choice import CaseScore, choose

NEVER = pytest.fail


def score(
    case: int, dice: dict[str, float], gains: dict[str, float] | None = None, fold: int = 0
) -> CaseScore:
    """One label; rules change the Dice by ``gains``, the same for every candidate."""
    keys = ["", *(rule.key for rule in tried_rules([1]))]
    return CaseScore(
        f"case {case}",
        fold,
        None,
        {name: {key: {1: raw + (gains or {}).get(key, 0.0)} for key in keys} for name, raw in dice.items()},
    )


def summed(candidate, rules, scores):
    """Rules that do not touch each other: their gains add up."""
    return [
        s.mean(candidate) + sum(s.mean(candidate, rule.key) - s.mean(candidate) for rule in rules)
        for s in scores
    ]


def test_the_configuration_with_the_highest_mean_is_taken():
    scores = [score(n, {"a": 0.8, "b": 0.82 + 0.001 * n}) for n in range(10)]
    chosen = choose(scores, [1], NEVER)
    assert (chosen.candidate, chosen.rules) == ("b", ())


def test_a_combination_is_taken_only_if_it_surely_gains():
    better = [score(n, {"a": 0.8, "b": 0.7, "a+b": 0.81 + 0.001 * n}) for n in range(10)]
    assert choose(better, [1], NEVER).candidate == "a+b"
    mixed = [score(n, {"a": 0.8, "b": 0.7, "a+b": 0.8 + (0.05 if n % 2 else -0.045)}) for n in range(10)]
    chosen = choose(mixed, [1], NEVER)
    assert chosen.candidate == "a"
    gain = next(gain for gain in chosen.gains if gain.what == "a+b")
    assert gain.interval.mean == pytest.approx(0.0025)
    assert not gain.is_sure


def test_a_rule_that_helps_every_case_is_taken():
    scores = [score(n, {"a": 0.8}, {"1:largest": 0.01 + 0.001 * n}) for n in range(10)]
    assert choose(scores, [1], NEVER).rules == (LabelRule("largest", 1),)


def test_a_rule_that_adds_nothing_to_the_others_goes():
    """After the largest component is kept, there are no small ones to remove, nor holes that it did not cause."""
    gains = {"1:largest": 0.03, "1:fill": 0.02}
    scores = [score(n, {"a": 0.8}, gains) for n in range(10)]

    def best(candidate, rules, scores):
        return [max(s.mean(candidate, rule.key) for rule in rules) for s in scores]

    assert choose(scores, [1], best).rules == (LabelRule("largest", 1),)


def test_all_labels_as_one_are_cleaned_before_each_label():
    keys = ["", *(rule.key for rule in tried_rules([1, 2]))]
    gains = {"0:together": 0.02, "2:largest": 0.01}
    scores = [
        CaseScore(
            f"case {n}", 0, None, {"a": {key: dict.fromkeys((1, 2), 0.8 + gains.get(key, 0)) for key in keys}}
        )
        for n in range(10)
    ]
    rules = choose(scores, [1, 2], summed).rules
    assert rules == (LabelRule("together", ALL_LABELS), LabelRule("largest", 2))


def test_a_rule_that_helps_on_average_but_not_surely_is_left():
    scores = [score(n, {"a": 0.8}, {"1:largest": 0.05 if n % 2 else -0.04}) for n in range(10)]
    chosen = choose(scores, [1], NEVER)
    assert chosen.rules == ()
    assert [gain.what for gain in chosen.gains] == ["1:largest"]


def test_of_several_volumes_the_best_is_taken_and_holes_are_filled_after():
    gains = {"1:min_volume:30": 0.02, "1:min_volume:100": 0.03, "1:largest": 0.01, "1:fill": 0.01}
    scores = [score(n, {"a": 0.8}, gains) for n in range(10)]
    rules = choose(scores, [1], summed).rules
    assert rules == (LabelRule("min_volume", 1, 100.0), LabelRule("fill", 1))


def test_rules_that_harm_each_other_leave_the_better_one():
    gains = {"1:min_volume:100": 0.03, "1:fill": 0.01}
    scores = [score(n, {"a": 0.8}, gains) for n in range(10)]
    chosen = choose(scores, [1], lambda candidate, rules, cases: [0.7] * len(cases))
    assert chosen.rules == (LabelRule("min_volume", 1, 100.0),)


@pytest.mark.parametrize(("count", "taken"), [(1, False), (5, False), (6, True)])
def test_fewer_than_six_cases_make_nothing_sure(count, taken):
    scores = [score(n, {"a": 0.8}, {"1:largest": 0.1}) for n in range(count)]
    assert bool(choose(scores, [1], NEVER).rules) is taken


def test_cases_of_one_patient_count_once():
    scores = [replace(score(n, {"a": 0.8}, {"1:largest": 0.1}), patient=f"p{n // 2}") for n in range(10)]
    assert choose(scores, [1], NEVER).rules == ()


def test_a_score_survives_json():
    one = score(0, {"a": 0.8, "a+b": 0.1})
    assert CaseScore.from_json(one.as_json()) == one


def test_no_case_chooses_nothing():
    with pytest.raises(ValueError, match="at least one case"):
        choose([], [1], NEVER)
