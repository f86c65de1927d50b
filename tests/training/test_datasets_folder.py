"""A snapshot goes out as a folder of `datasets` and comes back the same."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from django.conf import settings
from django.core.management import CommandError, call_command

from tests.training.feedback_records import correction, record
from training import api
from training.models import DatasetSnapshot

pytestmark = pytest.mark.django_db


def call(*words: str) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


@pytest.fixture
def snapshot() -> DatasetSnapshot:
    records = [correction(f"made up text {n}") for n in range(20)]
    records += [record("made up text 1", annotator="p2")]
    records += [record("partly", verdict="incorrect", judged_labels={"risk": "none"})]
    return api.freeze_snapshot(records, by_id=None, options={"replay_rows": 30})


def rows(**columns: Any) -> Any:
    return Dataset.from_dict({"text": ["one", "two"]} | columns)


def test_a_snapshot_comes_back_with_the_same_content(snapshot: DatasetSnapshot, tmp_path: Path) -> None:
    call("export_dataset", "--snapshot", str(snapshot.pk), "--out", str(tmp_path / "out"))
    folder = Path(snapshot.uri)
    kept = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    for path in folder.iterdir():
        path.unlink()
    assert f"snapshot {snapshot.pk} " in call("import_dataset", str(tmp_path / "out"))
    assert {path.name: path.read_bytes() for path in folder.glob("*.jsonl")} == kept
    assert len(kept) == 6


def test_others_can_load_it(snapshot: DatasetSnapshot, tmp_path: Path) -> None:
    said = call("export_dataset", "--out", str(tmp_path / "out"))
    assert f"kto {snapshot.manifest['preference_rows']['kto']}, pairs 17, rewards 19" in said
    loaded = load_from_disk(tmp_path / "out")
    assert {split: len(part) for split, part in loaded.items()} == snapshot.manifest["rows"]
    [row] = [row for row in loaded["train"] if row["text"] == "made up text 2"]
    assert (row["emotion"], row["risk"], row["soft_labels"]) == ("sadness", "low", None)
    assert (
        len(load_from_disk(tmp_path / "out" / "preferences" / "pairs")) == snapshot.manifest["preference_rows"]["pairs"]
    )


def test_a_folder_of_other_people_becomes_a_snapshot(tmp_path: Path) -> None:
    DatasetDict({"train": rows(risk=["low", None], emotion=["sadness", "stress"])}).save_to_disk(tmp_path / "in")
    call("import_dataset", str(tmp_path / "in"))
    snapshot = DatasetSnapshot.objects.get()
    assert snapshot.manifest["labels"]["train"]["risk"] == {"low": 1}
    assert snapshot.manifest["imported_from"] == "in"
    assert str(snapshot.uri).startswith(str(settings.SNAPSHOTS_DIR))


@pytest.mark.parametrize(
    ("splits", "reason"),
    [
        ({"train": rows(risk=["low", "extreme"])}, "train row 2: risk is 'extreme'"),
        ({"train": rows(soft_labels=["{", None])}, "train row 1: soft_labels must be a JSON object"),
        (
            {"train": rows(risk=["low", "low"]), "test": rows(risk=["low", "low"])},
            "test row 1 has the text of train row 1",
        ),
        ({"test": rows(risk=["low", "low"])}, "has no split train"),
    ],
)
def test_refuses_what_would_not_fit(splits: dict[str, Any], reason: str, tmp_path: Path) -> None:
    DatasetDict(splits).save_to_disk(tmp_path / "in")
    with pytest.raises(CommandError, match=reason):
        call("import_dataset", str(tmp_path / "in"))
    assert not DatasetSnapshot.objects.exists()


def test_refuses_an_evaluation_text(tmp_path: Path) -> None:
    DatasetDict({"train": Dataset.from_dict({"text": ["I want to kill myself"], "risk": ["high"]})}).save_to_disk(
        tmp_path / "in"
    )
    with pytest.raises(CommandError, match="train row 1 is a text of an evaluation set"):
        call("import_dataset", str(tmp_path / "in"))


def test_export_never_writes_over_a_folder(snapshot: DatasetSnapshot, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(CommandError, match="is not empty"):
        call("export_dataset", "--out", str(tmp_path))


def test_unknown_snapshot_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there is no snapshot 77"):
        call("export_dataset", "--snapshot", "77", "--out", str(tmp_path / "out"))


def test_takes_no_torch() -> None:
    code = "import sys, datasets, training.corpus.datasets_folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
