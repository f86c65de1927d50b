"""A new arm is calibrated anew; where risk begins is decided with the release and stays."""

from dataclasses import replace
from pathlib import Path

import pytest

from classifier.bundle import BundleParts, build_bundle, read_calibration
from classifier.hybrid import Abstain
from tests.training.toyruns import answer_rows, make_rows, write_data
from training import api, supervisor
from training.jobs.config import read_json
from training.models import DatasetSnapshot

pytestmark = pytest.mark.django_db(transaction=True)

THRESHOLDS = {"medium": 0.45, "high": 0.35}


def test_a_new_arm_keeps_the_thresholds_of_the_serving_bundle(var_dir: Path, toys: Path, tmp_path: Path) -> None:
    parts = BundleParts.from_bundle(toys / "toy-1", name="toy-tuned")
    tuned = replace(parts, calibration=replace(parts.calibration, risk_thresholds=THRESHOLDS))
    build_bundle(tmp_path / "toy-tuned", tuned)
    api.ensure_starter_release(tmp_path / "toy-tuned")
    # Enough held-out rows that thresholds would be fitted.
    held_out = [*answer_rows(), *make_rows(60)]
    folder = write_data(var_dir / "snapshots" / "toy", make_rows(16), held_out)
    snapshot = DatasetSnapshot.objects.create(content_hash="0" * 64, uri=str(folder), rows=24)
    run = api.start_run("bert", snapshot=snapshot, options={"epochs": 1, "learning_rate": 1e-6}, publishes=False)
    supervisor.supervise(run.pk)
    made = read_calibration(run.run_dir / "bundle")
    assert made.risk_thresholds == THRESHOLDS
    assert made.temperature != parts.calibration.temperature


def test_a_new_arm_keeps_the_abstain_target_with_a_limit_of_its_own(var_dir: Path, toys: Path, tmp_path: Path) -> None:
    parts = BundleParts.from_bundle(toys / "toy-1", name="toy-careful")
    abstain = Abstain(target=0.05, limit=0.9, coverage=0.5)
    build_bundle(tmp_path / "toy-careful", replace(parts, calibration=replace(parts.calibration, abstain=abstain)))
    api.ensure_starter_release(tmp_path / "toy-careful")
    folder = write_data(var_dir / "snapshots" / "toy", make_rows(16), [*answer_rows(), *make_rows(60)])
    snapshot = DatasetSnapshot.objects.create(content_hash="0" * 64, uri=str(folder), rows=24)
    run = api.start_run("bert", snapshot=snapshot, options={"epochs": 1, "learning_rate": 1e-6}, publishes=False)
    supervisor.supervise(run.pk)
    made = read_calibration(run.run_dir / "bundle").abstain
    # One in twenty is always reached: nothing has to be withheld any more.
    assert made == Abstain(target=0.05, limit=0.0, coverage=1.0)
    report = read_json(run.run_dir / "report.json")["ablation"]
    assert report["parts"][0]["rows"] == 64
    assert report["bag_of_words_rows"] == 16
    run.refresh_from_db()
    assert "ablation" not in run.metrics
    assert run.version.metrics["ablation"]["bundle"]["name"] == report["bundle"]["name"]
