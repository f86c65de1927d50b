"""A release measured again on rows that somebody brings."""

import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.training.toyruns import ANSWERS, answer_rows, make_rows
from training import api
from training.corpus.rows import write_rows
from training.models import Release

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def release(var_dir: Path, toys: Path) -> Release:
    return api.ensure_starter_release(toys / "toy-1")


def test_report_is_kept_with_the_release(release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Release.objects.filter(pk=release.pk).update(report={"gates": []})
    write_rows(tmp_path / "rows.jsonl", answer_rows())
    write_rows(tmp_path / "train.jsonl", make_rows(20))
    call_command("evaluate", release.name, rows=[tmp_path / "rows.jsonl"], train=tmp_path / "train.jsonl")
    release.refresh_from_db()
    report = release.report["ablation"]
    assert report["parts"][0]["rows"] == len(ANSWERS)
    assert report["bag_of_words_rows"] == 20
    assert release.report["gates"] == []
    assert "minus the best single part" in capsys.readouterr().out
    assert not any(text in json.dumps(release.report) for text in ANSWERS)


def test_the_job_says_which_row_is_wrong(release: Release, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "labels": {"risk": "often"}}\n', encoding="utf-8")
    with pytest.raises(CommandError, match=r"rows\.jsonl:1: risk is 'often'"):
        call_command("evaluate", release.name, rows=[tmp_path / "rows.jsonl"])
    release.refresh_from_db()
    assert "ablation" not in release.report


def test_unknown_release_is_refused(release: Release, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there is no release r9999"):
        call_command("evaluate", "r9999", rows=[tmp_path / "rows.jsonl"])


def test_a_shipped_report_comes_with_the_starter(var_dir: Path, toys: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(toys / "toy-1", tmp_path / "toy-1")
    (tmp_path / "toy-1.json").write_text(json.dumps({"ablation": {"format": 1}}), encoding="utf-8")
    assert api.ensure_starter_release(tmp_path / "toy-1").report == {"ablation": {"format": 1}}
