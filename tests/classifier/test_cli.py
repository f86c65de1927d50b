"""`classify`: good rows get a decision, bad rows an error, and no row stops the others."""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from classifier import api, cli

ROOT = Path(cli.__file__).resolve().parents[1]


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows))
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_bad_rows_get_an_error_and_the_rest_goes_on(toy_classifier: api.Classifier, tmp_path: Path) -> None:
    source = write_rows(
        tmp_path / "in.jsonl",
        [
            {"id": "a", "text": "I will marry her"},
            b"{broken\n",
            {"id": 7, "text": "ok"},
            b'{"id": "latin", "text": "caf\xe9"}\n',
            {"text": "no id"},
            {"id": "b"},
            {"id": "c", "text": 5},
            {"id": "d", "text": "  "},
            {"id": True, "text": "x"},
            b"[1, 2]\n",
            b"\n",
            {"id": "e", "text": "x" * 100_001},
            {"id": "f", "text": "a\0b"},
            b'{"id": "g", "text": "\\ud800"}\n',
            b"[" * 100_000 + b"\n",
            b'{"id": "last", "text": "I went to the store"}',
        ],
    )
    failed = cli.classify_file(source, tmp_path / "out.jsonl", toy_classifier)
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == [
        "a", None, 7, None, None, "b", "c", "d", None, None, "e", "f", "g", None, "last",
    ]  # fmt: skip
    errors = {row.get("line", row["id"]): row["error"] for row in rows if "error" in row}
    assert failed == len(errors) == 12
    assert errors[2].startswith("not JSON: Expecting property name")
    assert errors[4] == "not UTF-8 (byte 29 of the line): encode the file as UTF-8"
    assert errors[5] == "id is missing"
    assert errors["b"] == "text is missing"
    assert errors["c"] == "text must be a string"
    assert errors["d"] == "text is empty"
    assert errors[9] == "id must be a string or a whole number"
    assert errors["e"] == "text is longer than 100000 characters: split it"
    assert errors["f"].startswith("text is binary")
    assert errors["g"].startswith("text holds broken characters")
    assert set(rows[0]) == {"id", "labels", "probabilities", "evidence", "release"}
    assert rows[0]["labels"]["emotion"] == "positive"
    assert rows[-1]["labels"]["emotion"] == "neutral"


def test_byte_order_mark_is_no_error(toy_classifier: api.Classifier, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [b"\xef\xbb\xbf" + b'{"id": 1, "text": "ok"}\n'])
    assert cli.classify_file(source, tmp_path / "out.jsonl", toy_classifier) == 0


def test_order_holds_across_batches(toy_classifier: api.Classifier, tmp_path: Path) -> None:
    rows = [{"id": index, "text": "" if index % 10 == 0 else f"text {index}"} for index in range(150)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    assert cli.classify_file(source, tmp_path / "out.jsonl", toy_classifier) == 15
    assert [row["id"] for row in read_rows(tmp_path / "out.jsonl")] == list(range(150))


def test_empty_file_gives_an_empty_file(toy_classifier: api.Classifier, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [])
    assert cli.classify_file(source, tmp_path / "out.jsonl", toy_classifier) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_memory_does_not_grow_with_the_file(toy_classifier: api.Classifier, tmp_path: Path) -> None:
    """Bad rows only, so that the models do not blur the measurement."""

    def peak(count: int) -> int:
        source = write_rows(tmp_path / "in.jsonl", [{"id": "x" * 1000} for _ in range(count)])
        tracemalloc.start()
        cli.classify_file(source, tmp_path / "out.jsonl", toy_classifier)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(10)
    assert peak(8000) < peak(1000) + 1_000_000


class Interrupted(api.Classifier):
    def __init__(self) -> None:
        pass

    def decide(self, texts: Any) -> Any:
        raise KeyboardInterrupt


def test_interrupted_run_leaves_the_old_output(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": "ok"}])
    (tmp_path / "out.jsonl").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        cli.classify_file(source, tmp_path / "out.jsonl", Interrupted())
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}


def test_output_may_replace_the_input(toy_classifier: api.Classifier, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [{"id": 1, "text": "ok"}])
    assert cli.classify_file(source, source, toy_classifier) == 0
    assert read_rows(source)[0]["id"] == 1


@pytest.fixture
def bundle_args(toy_dir: Path, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("HEED_BASE_MODELS", str(toy_dir / "base_models"))
    return ["--bundle", str(toy_bundle)]


def test_one_text_prints_its_decision(bundle_args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["I will marry her", *bundle_args]) == 0
    assert json.loads(capsys.readouterr().out)["labels"]["risk"] == "none"


def test_failed_rows_give_exit_code_three(bundle_args: list[str], tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": ""}, {"id": 2, "text": "ok"}])
    files = ["--in", str(source), "--out", str(tmp_path / "out.jsonl"), "--no-progress"]
    assert cli.main([*files, *bundle_args]) == 3
    assert cli.main(["", *bundle_args]) == 3


def test_progress_goes_to_standard_error(
    bundle_args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"id": 2, "text": "ok"}])
    assert cli.main(["--in", str(source), "--out", str(tmp_path / "out.jsonl"), *bundle_args]) == 0
    captured = capsys.readouterr()
    assert "100%" in captured.err
    assert captured.out == ""


def test_wrong_bundle_is_a_message_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ok", "--bundle", str(tmp_path)]) == 1
    assert "no complete bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [[], ["text", "--in", "x", "--out", "y"], ["--in", "x"], ["--out", "y"], ["--in", "missing", "--out", "y"]],
)
def test_wrong_call_is_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2


def test_management_command_works_without_a_database(bundle_args: list[str], tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"id": 1, "text": "I will marry her"}, {"id": 2, "text": ""}])
    command = [sys.executable, str(ROOT / "manage.py"), "classify", "--in", str(source), "--out", "out.jsonl"]
    nowhere = {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run([*command, *bundle_args], cwd=tmp_path, env=os.environ | nowhere, check=False)
    assert done.returncode == 3
    good, bad = read_rows(tmp_path / "out.jsonl")
    assert good["labels"]["emotion"] == "positive"
    assert bad == {"id": 2, "error": "text is empty"}
