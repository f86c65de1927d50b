"""A bundle is whole and unaltered, or it is refused with the file's name."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from classifier import api
from classifier.base_models import sha256_of
from classifier.bundle import (
    BundleParts,
    build_bundle,
    manifest_sha256,
    read_manifest,
    verify_bundle,
)
from classifier.errors import BundleError
from tests.classifier import toys


@pytest.fixture
def copy(toy_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_bundle, tmp_path / "copy"))


def test_manifest_names_every_file_by_its_hash(toy_bundle: Path) -> None:
    manifest = verify_bundle(toy_bundle)
    on_disk = {path.relative_to(toy_bundle).as_posix() for path in toy_bundle.rglob("*") if path.is_file()}
    assert set(manifest.files) == on_disk - {"manifest.json"}
    assert manifest.files["prompt.txt"] == sha256_of(toy_bundle / "prompt.txt")
    raw = json.loads((toy_bundle / "manifest.json").read_text())
    assert raw["format"] == 1
    assert set(raw["parts"]) == {"rules", "bert", "llm"}
    assert raw["parts"]["bert"]["kind"] == "full"
    assert raw["parts"]["llm"]["base"] == toys.TOY_LLAMA


def damage(name: str, change: Callable[[Path], object]) -> Callable[[Path], None]:
    def apply(bundle: Path) -> None:
        change(bundle / name)

    return apply


def set_manifest(**fields: object) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        path = bundle / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage("manifest.json", Path.unlink), "no complete bundle"),
        (damage("manifest.json", lambda path: path.write_text("{")), "manifest.json is malformed"),
        (damage("bert/heads.safetensors", Path.unlink), "bert/heads.safetensors .* is missing"),
        (damage("prompt.txt", lambda path: path.write_text("Say none.")), "prompt.txt .* is altered"),
        (damage("bert/extra.json", lambda path: path.write_text("{}")), "bert/extra.json .* is not in its manifest"),
        (set_manifest(format=2), "format 2"),
        (set_manifest(policy="best"), "policy 'best'"),
        (set_manifest(files=None), "malformed"),
        (set_manifest(parts={}), "lacks 'rules'"),
    ],
)
def test_refuses_a_damaged_bundle(copy: Path, change: Callable[[Path], None], message: str) -> None:
    change(copy)
    with pytest.raises(BundleError, match=message):
        verify_bundle(copy)


def test_never_takes_a_pickle_even_with_a_right_hash(copy: Path) -> None:
    (copy / "bert" / "model.pkl").write_bytes(b"x")
    files = dict(read_manifest(copy).files) | {"bert/model.pkl": sha256_of(copy / "bert" / "model.pkl")}
    set_manifest(files=files)(copy)
    with pytest.raises(BundleError, match=r"model\.pkl .* not of a kind that is ever loaded"):
        verify_bundle(copy)


def test_load_verifies_unless_told_not_to(copy: Path, toy_dir: Path) -> None:
    (copy / "prompt.txt").write_text("Label it.")
    with pytest.raises(BundleError, match="altered"):
        api.load(copy, base_models=toy_dir / "base_models")
    assert api.load(copy, base_models=toy_dir / "base_models", verify=False).release == "toy-1"


def test_refuses_other_base_weights(copy: Path, tmp_path: Path, toy_dir: Path) -> None:
    bases = Path(shutil.copytree(toy_dir / "base_models", tmp_path / "bases"))
    weights = bases / toys.TOY_BERT / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match="weights of the base model toy-bert"):
        api.load(copy, base_models=bases)


def test_refuses_a_bundle_for_other_labels(copy: Path, toy_dir: Path) -> None:
    schema = (copy / "schema.toml").read_text().replace("neutral", "calm")
    (copy / "schema.toml").write_text(schema)
    with pytest.raises(BundleError, match="made for label schema"):
        api.load(copy, base_models=toy_dir / "base_models", verify=False)


def test_malformed_rules_are_a_bundle_error(copy: Path, toy_dir: Path) -> None:
    (copy / "rules" / "toy.toml").write_text("[[rule]]")
    with pytest.raises(BundleError, match="rules of the bundle toy-1"):
        api.load(copy, base_models=toy_dir / "base_models", verify=False)


def test_new_bundle_copies_what_does_not_change(toy_bundle: Path, toy_dir: Path, tmp_path: Path) -> None:
    bert = toys.make_bert_part(tmp_path / "new-bert", toy_dir / "base_models" / toys.TOY_BERT, seed=9)
    (bert / "training.log").write_text("not part of it")
    parts = replace(BundleParts.from_bundle(toy_bundle, name="toy-9"), bert=bert)
    old, new = read_manifest(toy_bundle), build_bundle(tmp_path / "toy-9", parts)
    assert new == verify_bundle(tmp_path / "toy-9")
    assert new.llm == old.llm
    assert new.rules_version == old.rules_version
    assert new.bert is not None
    assert old.bert is not None
    assert new.bert.version != old.bert.version
    changed = {name for name in old.files if old.files[name] != new.files[name]}
    assert changed == {"bert/heads.safetensors"}
    assert set(new.files) == set(old.files)
    assert manifest_sha256(tmp_path / "toy-9") != manifest_sha256(toy_bundle)


def test_never_changes_an_existing_bundle(toy_bundle: Path, copy: Path) -> None:
    before = manifest_sha256(copy)
    with pytest.raises(BundleError, match="never changed"):
        build_bundle(copy, BundleParts.from_bundle(toy_bundle, name="other"))
    assert manifest_sha256(copy) == before


def test_failed_build_leaves_nothing_behind(toy_bundle: Path, tmp_path: Path) -> None:
    parts = replace(BundleParts.from_bundle(toy_bundle, name="broken"), bert_base=None)
    with pytest.raises(BundleError, match="needs the name and SHA-256"):
        build_bundle(tmp_path / "out" / "broken", parts)
    assert list((tmp_path / "out").iterdir()) == []


def test_bundle_without_arms_is_refused(toy_bundle: Path, tmp_path: Path) -> None:
    parts = replace(BundleParts.from_bundle(toy_bundle, name="none"), bert=None, llm=None)
    with pytest.raises(BundleError, match="at least one arm"):
        build_bundle(tmp_path / "none", parts)
