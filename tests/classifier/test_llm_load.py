"""Loading the LLM arm: settings, base weights shared by bundles, and small weights by bitsandbytes."""

import gc
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from classifier import llm_load
from classifier.errors import BundleError
from classifier.llm import LlmArm
from classifier.llm_load import LlmSettings
from tests.classifier.test_llm_scoring import SCHEMA, TEXTS, assert_same
from tests.classifier.toys import TOY_LLAMA, TOY_PROMPT, make_base_models, make_llm_part


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base_models(tmp_path_factory.mktemp("bases")) / TOY_LLAMA


@pytest.fixture(scope="module")
def parts(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters on one base, for its `q_proj` and `v_proj`."""
    folder = tmp_path_factory.mktemp("parts")
    return [make_llm_part(folder / str(seed), base, seed=seed) for seed in (1, 2)]


def load(part: Path, base: Path, **settings: Any) -> LlmArm:
    return LlmArm.load(part, base, SCHEMA, TOY_PROMPT, settings=LlmSettings(max_tokens=100, **settings))


def probabilities(arm: LlmArm) -> list[dict[str, Any]]:
    return [dict(score.probabilities) for score in arm.score(TEXTS)]


def weight(arm: LlmArm, name: str) -> Any:
    return arm.model.get_submodule(f"model.layers.0.{name}").weight


def test_two_bundles_share_what_their_adapters_do_not_touch(base: Path, parts: list[Path]) -> None:
    first, second = (load(part, base) for part in parts)
    for name in ("mlp.down_proj", "self_attn.k_proj", "input_layernorm"):
        assert weight(first, name).data_ptr() == weight(second, name).data_ptr()
    assert weight(first, "self_attn.q_proj").data_ptr() != weight(second, "self_attn.q_proj").data_ptr()


def test_a_second_bundle_changes_nothing_in_the_first(base: Path, parts: list[Path]) -> None:
    first = load(parts[0], base)
    before = probabilities(first)
    second = load(parts[1], base)
    assert_same(first.score(TEXTS), before)
    with pytest.raises(AssertionError):
        assert_same(second.score(TEXTS), before)


def test_shared_weights_are_those_on_disk(base: Path, parts: list[Path]) -> None:
    arms = [load(part, base) for part in parts]
    on_disk = load_file(base / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    assert torch.equal(arms[1].model.get_parameter(name), on_disk[name])


def test_a_changed_base_is_not_taken_for_the_one_in_memory(base: Path, parts: list[Path], tmp_path: Path) -> None:
    first = load(parts[0], base)
    other = tmp_path / base.name
    shutil.copytree(base, other)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    second = load(parts[0], other)
    assert not torch.equal(first.model.model.norm.weight, second.model.model.norm.weight)
    assert torch.equal(second.model.model.norm.weight, weights["model.norm.weight"])


def test_weights_that_nothing_uses_are_let_go(base: Path, parts: list[Path], tmp_path: Path) -> None:
    # A base of its own: arms of other tests may still be alive.
    own = Path(shutil.copytree(base, tmp_path / "let-go"))
    arm: LlmArm | None = load(parts[0], own)
    assert any(key[0] == own.name for key in llm_load._shared)
    del arm
    gc.collect()
    assert not [key for key in llm_load._shared if key[0] == own.name]


def test_bundles_loaded_at_the_same_time_share_too(base: Path, parts: list[Path]) -> None:
    gate = threading.Barrier(4)

    def load_together(part: Path) -> LlmArm:
        gate.wait(30)
        return load(part, base)

    with ThreadPoolExecutor(4) as pool:
        arms = list(pool.map(load_together, parts * 2))
    assert len({weight(arm, "mlp.down_proj").data_ptr() for arm in arms}) == 1
    assert_same(arms[2].score(TEXTS), probabilities(arms[0]))
    assert_same(arms[3].score(TEXTS), probabilities(arms[1]))


def mean_gap(arm: LlmArm, other: LlmArm) -> float:
    """Mean absolute difference of their probabilities."""
    rows = zip(probabilities(arm), probabilities(other), strict=True)
    return float(np.mean([abs(a[name][value] - b[name][value]) for a, b in rows for name in a for value in a[name]]))


@pytest.mark.parametrize(("bits", "layer", "most"), [("8bit", "Linear8bitLt", 0.1), ("4bit", "Linear4bit", 0.7)])
def test_bitsandbytes_weights_score_close_to_the_full_ones(
    bits: str, layer: str, most: float, base: Path, parts: list[Path]
) -> None:
    """On a CPU; no GPU has seen this. Close: against another adapter. Random weights bear 4 bits badly."""
    pytest.importorskip("bitsandbytes")
    full, small = load(parts[0], base), load(parts[0], base, quantise=bits)
    assert any(type(module).__name__ == layer for module in small.model.modules())
    assert 0 < mean_gap(full, small) < most * mean_gap(full, load(parts[1], base))


def test_an_adapter_counts_beside_small_weights(base: Path, parts: list[Path]) -> None:
    pytest.importorskip("bitsandbytes")
    full, small = (load(parts[1], base, quantise=bits) for bits in ("", "8bit"))
    other = load(parts[0], base, quantise="8bit")
    assert mean_gap(full, small) < mean_gap(other, small) / 3


def test_bfloat16_scores_close_to_float32(base: Path, parts: list[Path]) -> None:
    small = load(parts[0], base, dtype="bfloat16")
    assert small.model.dtype == torch.bfloat16
    assert 0 < mean_gap(load(parts[0], base), small) < 0.03


def test_a_part_says_whether_it_runs_in_int8(base: Path, parts: list[Path], tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    for path in parts[0].iterdir():
        (part / path.name).write_bytes(path.read_bytes())
    (part / "llm.json").write_text(json.dumps({"max_tokens": 64, "int8": True}))
    arm = LlmArm.load(part, base, SCHEMA, TOY_PROMPT)
    assert arm.max_tokens == 64
    assert type(arm.model.model.layers[0].mlp.down_proj).__name__ == "Int8Linear"


def test_the_environment_is_stronger_than_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llm.json").write_text('{"int8": true}')
    assert LlmSettings.read(tmp_path).int8
    monkeypatch.setenv("HEED_LLM_INT8", "0")
    assert not LlmSettings.read(tmp_path).int8


@pytest.mark.parametrize(
    ("text", "named"),
    [('{"max_tokens": "many"}', "max_tokens"), ('{"int8": "yes"}', "int8"), ("[]", "object"), ("{", "read")],
)
def test_refuses_a_malformed_settings_file_by_field(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "llm.json").write_text(text)
    with pytest.raises(BundleError, match=named):
        LlmSettings.read(tmp_path)


@pytest.mark.parametrize("variable", ["HEED_LLM_INT8", "HEED_LLM_QUANTISE", "HEED_LLM_DTYPE"])
def test_refuses_an_odd_setting_by_name(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llm.json").write_text("{}")
    monkeypatch.setenv(variable, "perhaps")
    with pytest.raises(BundleError, match=variable):
        LlmSettings.read(tmp_path)
