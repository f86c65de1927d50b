"""The BERT arm on ONNX Runtime: the same answers as torch, whichever batch a text is in; and which runtime serves."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig

from bench.texts import read_texts
from classifier import api, bert_onnx, derived
from classifier.base_models import find_base, sha256_of
from classifier.bert import BertArm, BertModel, PartSettings
from classifier.bert_onnx import OnnxBertArm, load_bert
from classifier.bundle import read_manifest
from classifier.derived import ExportFailed, ensure_onnx, inputs_sha256
from classifier.errors import BundleError
from classifier.schema import GOLDEN_STATEMENTS, load_schema
from tests.classifier import toys

SCHEMA = load_schema()
TEXTS = ["ok", "a longer text than the first one", "x" * 700, "déjà vu", *[text for text, _, _ in GOLDEN_STATEMENTS]]


@pytest.fixture(scope="module")
def base(toy_dir: Path) -> Path:
    return toy_dir / "base_models" / toys.TOY_BERT


@pytest.fixture(scope="module")
def part(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA part with an auxiliary head, which must not come out."""
    torch.manual_seed(3)
    heads = {dimension.name: len(dimension.names) for dimension in SCHEMA.dimensions} | {"auxiliary": 2}
    lora = LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    path = tmp_path_factory.mktemp("part") / "bert"
    BertModel.build(base, heads, lora=lora).eval().save(path, max_tokens=96)
    return path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of derived files, shared by these tests: an export takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("derived")
        patch.setenv("HEED_DERIVED_DIR", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def _no_override(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEED_BERT_RUNTIME", raising=False)


@pytest.fixture(scope="module")
def arm(part: Path, base: Path, kept: Path) -> OnnxBertArm:
    return OnnxBertArm.load(part, base, SCHEMA)


def test_int8_answers_like_torch(arm: OnnxBertArm, part: Path, base: Path) -> None:
    exact = BertArm.load(part, base, SCHEMA).score(TEXTS)
    for ours, theirs in zip(arm.score(TEXTS), exact, strict=True):
        for dimension in SCHEMA.dimensions:
            row = ours.probabilities[dimension.name]
            assert list(row) == list(dimension.names)
            assert sum(row.values()) == pytest.approx(1)
            assert row == pytest.approx(theirs.probabilities[dimension.name], abs=0.05)


def test_scores_do_not_depend_on_the_batch(arm: OnnxBertArm) -> None:
    for text, together in zip(TEXTS, arm.score(TEXTS), strict=True):
        (alone,) = arm.score([text])
        for name in SCHEMA.names:
            assert together.probabilities[name] == pytest.approx(alone.probabilities[name], abs=1e-5)


def test_the_file_holds_int8_weights_and_nothing_of_this_machine(arm: OnnxBertArm, kept: Path) -> None:
    import onnx

    (path,) = kept.glob("*.onnx")
    model = onnx.load(path)
    linears = [item for item in model.graph.initializer if item.data_type == onnx.TensorProto.INT8]
    assert len(linears) == 2 * 6  # two layers of query, key, value, output and the two feed-forward matrices
    assert [item.name for item in model.graph.output] == ["logits"]
    content = path.read_bytes()
    assert str(kept).encode() not in content
    assert str(Path(derived.__file__).parents[1]).encode() not in content


def test_a_failing_session_is_a_failing_arm(arm: OnnxBertArm) -> None:
    with pytest.raises(RuntimeError, match="ONNX Runtime failed"):
        arm.forward(np.array([[10**6]]), np.array([[1]]))


def test_a_damaged_file_is_made_again(arm: OnnxBertArm, part: Path, base: Path, kept: Path) -> None:
    path = ensure_onnx(part, base, SCHEMA)
    sha256 = sha256_of(path)
    path.write_bytes(path.read_bytes()[:1000])
    again = ensure_onnx(part, base, SCHEMA)
    # On one machine an export gives the same bytes every time.
    assert (again, sha256_of(again)) == (path, sha256)


def test_only_what_the_network_follows_from_names_the_file(part: Path, base: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(part, tmp_path / "bert"))
    settings = json.loads((copy / "bert.json").read_text())
    (copy / "bert.json").write_text(json.dumps({**settings, "runtime": {"name": "onnx"}}))
    assert inputs_sha256(copy, base, SCHEMA) == inputs_sha256(part, base, SCHEMA)
    (copy / "heads.safetensors").write_bytes(b"other weights")
    assert inputs_sha256(copy, base, SCHEMA) != inputs_sha256(part, base, SCHEMA)


def test_the_files_used_least_lately_go(tmp_path: Path) -> None:
    import os

    for age in range(derived.KEPT_FILES + 2):
        (tmp_path / f"{age}.onnx").touch()
        (tmp_path / f"{age}.sha256").touch()
        os.utime(tmp_path / f"{age}.onnx", (1000 - age, 1000 - age))
    derived.prune(tmp_path)
    assert sorted(path.stem for path in tmp_path.glob("*.onnx")) == [str(age) for age in range(derived.KEPT_FILES)]
    assert len(list(tmp_path.glob("*.sha256"))) == derived.KEPT_FILES


def with_runtime(part: Path, target: Path, name: str) -> Path:
    copy = Path(shutil.copytree(part, target))
    settings = json.loads((copy / "bert.json").read_text())
    (copy / "bert.json").write_text(json.dumps({**settings, "runtime": {"name": name}}))
    return copy


@pytest.mark.parametrize(
    ("recorded", "override", "wanted"),
    [
        (None, None, BertArm),
        ("torch", None, BertArm),
        ("onnx", None, OnnxBertArm),
        ("onnx", "torch", BertArm),
        ("torch", "onnx", OnnxBertArm),
    ],
)
def test_the_release_chooses_the_runtime_and_the_setting_overrules_it(
    arm: OnnxBertArm,
    part: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorded: str | None,
    override: str | None,
    wanted: type,
) -> None:
    if recorded is not None:
        part = with_runtime(part, tmp_path / "bert", recorded)
    if override is not None:
        monkeypatch.setenv("HEED_BERT_RUNTIME", override)
    assert type(load_bert(part, base, SCHEMA)) is wanted


def test_refuses_an_unknown_runtime(part: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="runtime is 'abacus'"):
        PartSettings.read(with_runtime(part, tmp_path / "bert", "abacus"))
    monkeypatch.setenv("HEED_BERT_RUNTIME", "abacus")
    with pytest.raises(BundleError, match="HEED_BERT_RUNTIME is 'abacus'"):
        load_bert(part, base, SCHEMA)


def test_a_machine_that_cannot_export_serves_by_torch_unless_told_otherwise(
    part: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("HEED_DERIVED_DIR", str(tmp_path / "a file" / "derived"))
    allowed = with_runtime(part, tmp_path / "bert", "onnx")
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_bert(allowed, base, SCHEMA), BertArm)
    assert "HEED_DERIVED_DIR" in caplog.text
    monkeypatch.setenv("HEED_BERT_RUNTIME", "onnx")
    with pytest.raises(BundleError, match="HEED_DERIVED_DIR"):
        load_bert(allowed, base, SCHEMA)


def test_a_part_that_cannot_be_traced_says_so(part: Path, base: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(part, tmp_path / "bert"))
    (broken / "heads.safetensors").write_bytes(b"no weights")
    with pytest.raises(ExportFailed, match="cannot be exported to ONNX: BundleError: the bert part cannot be loaded"):
        ensure_onnx(broken, base, SCHEMA)


def test_a_classifier_decides_on_onnx(
    toy_dir: Path, toy_bundle: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEED_BERT_RUNTIME", "onnx")
    classifier = api.load(toy_bundle, base_models=toy_dir / "base_models")
    assert isinstance(classifier._arms.bert, OnnxBertArm)
    assert api.check_golden(classifier) == []


@pytest.mark.parametrize(
    ("machine", "features", "wanted"),
    [("x86_64", "avx2 avx512f", True), ("x86_64", "avx2 avx512_vnni", False), ("aarch64", "", False)],
)
def test_weights_become_unsigned_only_where_sums_overflow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, features: str, wanted: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {features} sse\n")
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(bert_onnx, "CPU_INFO", tmp_path / "cpuinfo")
    assert bert_onnx.sums_overflow() is wanted
    monkeypatch.setattr(bert_onnx, "CPU_INFO", tmp_path / "nothing")
    assert bert_onnx.sums_overflow() is (machine == "x86_64")


@pytest.mark.slow
def test_the_shipped_part_loses_next_to_nothing_on_int8(kept: Path) -> None:
    """The real base model: at most one label in thirty differs."""
    bundle = api.STARTER_BUNDLE
    manifest = read_manifest(bundle)
    assert manifest.bert is not None
    base = find_base(manifest.bert.base)
    texts = [row.text for row in read_texts(None, 150)]
    exact = BertArm.load(bundle / "bert", base, SCHEMA).score(texts)
    ours = OnnxBertArm.load(bundle / "bert", base, SCHEMA).score(texts)
    same = [
        max(one.probabilities[name], key=one.probabilities[name].__getitem__)
        == max(other.probabilities[name], key=other.probabilities[name].__getitem__)
        for one, other in zip(exact, ours, strict=True)
        for name in SCHEMA.names
    ]
    assert sum(same) / len(same) > 29 / 30
