"""What a job writes, a supervisor reads, whatever happens in between."""

import json
from pathlib import Path

from training.jobs.events import EventLog, read_events
from training.progress import MAX_POINTS, Progress


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    line = json.dumps({"kind": "stage", "stage": "train"}) + "\n"
    path.write_text(line + line[:10], encoding="utf-8")
    events, offset = read_events(tmp_path, 0)
    assert [event["stage"] for event in events] == ["train"]
    path.write_text(line + line, encoding="utf-8")
    assert len(read_events(tmp_path, offset)[0]) == 1


def test_a_line_that_a_killed_job_left_unfinished_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"kind": "met\n{"kind": "stage", "stage": "save"}\n', encoding="utf-8")
    assert [event["stage"] for event in read_events(tmp_path, 0)[0]] == ["save"]


def test_the_remaining_time_follows_from_this_attempt_alone(tmp_path: Path) -> None:
    now = [100.0]
    log = EventLog(tmp_path, clock=lambda: now[0])
    log.progress("train", 50, 100)
    now[0] += 10
    log.progress("train", 60, 100)
    assert [event["eta_s"] for event in read_events(tmp_path, 0)[0]] == [None, 40.0]


def test_progress_runs_over_all_stages(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    progress = Progress(tmp_path)
    shares = []
    for stage in ("train", "calibrate BERT", "evaluate candidate", "evaluate baseline"):
        log.progress(stage, 1, 2)
        progress.read()
        shares.append(progress.as_fields()["progress"])
    assert shares == [0.4, 0.82, 0.915, 0.975]


def test_steps_done_again_replace_the_earlier_points(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for step, value in ((1, 0.9), (2, 0.8), (2, 0.7)):
        log.metric(step, "loss", value)
    progress = Progress(tmp_path)
    progress.read()
    assert [point["value"] for point in progress.as_fields()["series"]] == [0.9, 0.7]
    assert progress.metrics == {"loss": 0.7}


def test_a_long_curve_is_thinned(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for step in range(MAX_POINTS + 1):
        log.metric(step, "loss", 1.0)
    progress = Progress(tmp_path)
    progress.read()
    assert len(progress.as_fields()["series"]) <= MAX_POINTS // 2 + 1


def test_a_number_that_is_none_stays_readable_for_the_database(tmp_path: Path) -> None:
    EventLog(tmp_path).metric(1, "loss", float("nan"))
    progress = Progress(tmp_path)
    progress.read()
    assert progress.as_fields()["series"] == []
