"""The BERT arm: windows of long texts, batches, and parts that do not fit."""

import itertools
import json
import math
import random
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from classifier.batches import plan_batches, plan_cheapest
from classifier.bert import BertArm, BertModel, encode_texts, encode_windows
from classifier.errors import BundleError
from classifier.schema import load_schema
from tests.classifier import toys

SCHEMA = load_schema()
HEADS = {dimension.name: len(dimension.names) for dimension in SCHEMA.dimensions}


@pytest.fixture(scope="module")
def base(toy_dir: Path) -> Path:
    return toy_dir / "base_models" / toys.TOY_BERT


@pytest.fixture(scope="module")
def arm(toy_bundle: Path, base: Path) -> BertArm:
    return BertArm.load(toy_bundle / "bert", base, SCHEMA)


def test_score_does_not_depend_on_the_batch(arm: BertArm) -> None:
    texts = ["ok", "a longer text than the first one", "x" * 700, "déjà vu"]
    for text, together in zip(texts, arm.score(texts), strict=True):
        (alone,) = arm.score([text])
        for name in SCHEMA.names:
            assert together.probabilities[name] == pytest.approx(alone.probabilities[name], abs=1e-5)


def test_short_text_is_one_window() -> None:
    tokenizer = toys.make_tokenizer()
    (ids,) = encode_windows(tokenizer, "x" * 254, 256)
    assert (len(ids), ids[0], ids[-1]) == (256, tokenizer.cls_token_id, tokenizer.sep_token_id)


@pytest.mark.parametrize("length", [255, 300, 444, 445, 1000])
def test_windows_of_a_long_text_leave_no_token_out(length: int) -> None:
    tokenizer = toys.make_tokenizer()
    text = "".join(chr(97 + index % 26) for index in range(length))
    inner = [ids[1:-1] for ids in encode_windows(tokenizer, text, 256)]
    pieces = [tokenizer.decode(ids) for ids in inner]
    assert all(len(ids) == 254 for ids in inner)
    assert text.startswith(pieces[0])
    assert text.endswith(pieces[-1])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    starts = [*range(0, length - 254, 190), length - 254]
    assert inner == [ids[start : start + 254] for start in starts]
    assert all(after - before <= 190 for before, after in pairwise(starts))


def test_the_riskiest_window_speaks_for_a_long_text(arm: BertArm) -> None:
    def p_risk(text: str) -> float:
        row = arm.score([text])[0].probabilities["risk"]
        return row["medium"] + row["high"]

    text = "all is calm here today " * 25 + "and the end differs"
    windows = [arm.tokenizer.decode(ids[1:-1]) for ids in encode_windows(arm.tokenizer, text, arm.max_tokens)]
    assert len(windows) > 2
    assert p_risk(text) == pytest.approx(max(p_risk(window) for window in windows), abs=1e-5)


def test_window_without_a_finite_score_spoils_the_text(arm: BertArm) -> None:
    assert arm._p_risk({"risk": {"none": 0.9, "low": 0.1, "medium": float("nan"), "high": 0.0}}) == float("inf")


def test_control_tokens_in_a_text_stay_text() -> None:
    tokenizer = toys.make_tokenizer()
    (ids,) = encode_windows(tokenizer, "a<sep><cls>b", 64)
    assert not set(ids[1:-1]) & set(tokenizer.all_special_ids)


def test_batches_hold_all_within_the_budget() -> None:
    lengths = [3, 90, 10, 250, 40, 12, 5, 5]
    batches = plan_batches(lengths, 100, rows=3)
    assert sorted(index for batch in batches for index in batch) == list(range(8))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 100
        assert len(batch) <= 3
    assert batches[0] == [3]


def mixed_lengths(count: int, seed: int) -> list[int]:
    """Token counts as short texts have them: half below 23, one in ten above 65."""
    rng = random.Random(seed)
    return [min(96, max(3, round(rng.lognormvariate(3.1, 0.8)))) for _ in range(count)]


@pytest.mark.parametrize("count", [8, 32, 2000])
@pytest.mark.parametrize("seed", range(5))
def test_less_than_15_percent_of_a_plan_is_padding(count: int, seed: int) -> None:
    lengths = mixed_lengths(count, seed)
    batches = plan_cheapest(lengths, 512, 16)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    padded = [len(batch) * max(lengths[index] for index in batch) for batch in batches]
    assert max(padded) <= 512
    assert sum(lengths) > 0.85 * sum(padded)


def test_the_cheapest_plan_is_the_best_of_all_cuts() -> None:
    lengths = mixed_lengths(9, 7)
    ordered = sorted(lengths, reverse=True)

    def cost(sizes: tuple[int, ...]) -> float:
        starts = [0, *itertools.accumulate(sizes)]
        padded = [size * ordered[start] for start, size in zip(starts, sizes, strict=False)]
        return sum(padded) + 16 * len(sizes) if max(padded) <= 200 else math.inf

    ends = itertools.chain.from_iterable(itertools.combinations(range(1, 9), count) for count in range(9))
    cuts = (tuple(b - a for a, b in pairwise((0, *cut, 9))) for cut in ends)
    found = tuple(len(batch) for batch in plan_cheapest(lengths, 200, 16))
    assert cost(found) == min(map(cost, cuts))


def test_a_text_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    assert plan_cheapest([5, 700, 5], 512, 16) == [[1], [0, 2]]
    assert plan_cheapest([], 512, 16) == []


def test_texts_together_are_encoded_like_each_alone() -> None:
    tokenizer = toys.make_tokenizer()
    texts = ["one", "x" * 300, "a<sep>b", "déjà vu"]
    assert encode_texts(tokenizer, texts, 96) == [encode_windows(tokenizer, text, 96) for text in texts]
    assert encode_texts(tokenizer, [], 96) == []


def test_saved_lora_part_scores_like_the_trained_model(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    lora = LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    model = BertModel.build(base, HEADS | {"auxiliary": 2}, lora=lora).eval()
    model.save(tmp_path, max_tokens=64)
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (tmp_path / "model.safetensors").exists()
    arm = BertArm.load(tmp_path, base, SCHEMA)
    assert arm.max_tokens == 64
    ids = torch.tensor(encode_windows(arm.tokenizer, "some words", 64))
    with torch.inference_mode():
        want = model(ids, torch.ones_like(ids))["emotion"].softmax(-1)[0].tolist()
    got = list(arm.score(["some words"])[0].probabilities["emotion"].values())
    assert got == pytest.approx(want, abs=1e-5)
    again = BertModel.load(tmp_path, base, trainable=True)
    assert any(parameter.requires_grad for name, parameter in again.named_parameters() if "lora" in name)


def test_refuses_heads_of_another_schema(toy_bundle: Path, base: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(toy_bundle / "bert", tmp_path / "bert"))
    weights = load_file(part / "heads.safetensors")
    weights |= {"risk.weight": weights["risk.weight"][:3].clone(), "risk.bias": weights["risk.bias"][:3].clone()}
    save_file(weights, part / "heads.safetensors")
    with pytest.raises(BundleError, match="no head of 4 values for risk"):
        BertArm.load(part, base, SCHEMA)


def test_refuses_unknown_pooling(toy_bundle: Path, base: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(toy_bundle / "bert", tmp_path / "bert"))
    (part / "bert.json").write_text(json.dumps({"max_tokens": 64, "pooling": "max"}))
    with pytest.raises(BundleError, match="pooling is 'max'"):
        BertArm.load(part, base, SCHEMA)
