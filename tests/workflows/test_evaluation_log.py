import json
from datetime import datetime, timedelta, timezone

from medimg3d.workflows.evaluation_log import TestEvaluation, earlier_evaluations, log_test_evaluation

ENTRY = TestEvaluation(
    "xray", "1.0", "abc", "chest", "test", 312, 0.97, 0.9, "medimg3d evaluate p chest.json"
)


def test_a_line_a_look_with_time_in_utc(tmp_path):
    now = datetime(2026, 1, 2, 3, 30, tzinfo=timezone(timedelta(hours=2)))
    path = log_test_evaluation(ENTRY, tmp_path, now=now)
    log_test_evaluation(ENTRY, tmp_path, now=now)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert path == tmp_path / "docs" / "test_evaluations.jsonl"
    assert lines[0]["date"] == "2026-01-02T01:30:00Z"
    assert (lines[0]["auc"], lines[0]["n"], len(lines)) == (0.97, 312, 2)


def test_a_line_cut_short_by_a_crash_does_not_swallow_the_next(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "test_evaluations.jsonl").write_text('{"datalist": "ch')
    log_test_evaluation(ENTRY, tmp_path)
    assert len(earlier_evaluations(tmp_path, "chest")) == 1


def test_looks_at_other_lists_do_not_count(tmp_path):
    assert earlier_evaluations(tmp_path, "chest") == []
    log_test_evaluation(ENTRY, tmp_path)
    assert earlier_evaluations(tmp_path, "other") == []
