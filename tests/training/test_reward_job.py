"""The reward job on a toy Llama: which line is better, by how much, how surely; the part that ppo reads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from classifier.llm_prompt import LabelPrompt
from classifier.schema import load_schema
from tests.classifier.toys import TOY_LLAMA, make_tokenizer
from tests.training.toyruns import GLAD, SAD
from tests.training.trlruns import SHORT, make_pairs, make_texts, make_trl_run, read_metric, stop_after
from training.corpus.preferences import PAIRS_FILE, PairRow, write_preferences
from training.jobs import reward
from training.jobs.config import ConfigError, RewardOptions
from training.jobs.reward_model import find_reward_part, hash_prompt
from training.jobs.runtime import Job, Stopped
from training.jobs.start import Start

OPTIONS: dict[str, Any] = {**SHORT, "epochs": 2, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def whole_run(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = make_trl_run(tmp_path_factory.mktemp("whole"), toys, "reward", options=OPTIONS)
    reward.main(Job(run_dir))
    return run_dir


def read_manifest(run_dir: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    return made


def test_held_out_pairs_come_out_right_after_training(whole_run: Path) -> None:
    made = read_manifest(whole_run)
    accuracy = made["metrics"]["held_out_accuracy"]
    assert made["metrics"]["held_out_pairs"] + made["metrics"]["pairs"] == 40
    assert accuracy["after"] == 1.0
    assert read_metric(whole_run, "pair_accuracy")[-1] == 1.0


def test_the_part_is_an_adapter_with_its_head_for_this_base_and_prompt(whole_run: Path, toys: Path) -> None:
    assert read_manifest(whole_run)["arm"] == "reward"
    weights = load_file(whole_run / "part" / "adapter_model.safetensors")
    assert any("lora_" in name for name in weights)
    assert any(name.endswith("score.weight") for name in weights)
    start = Start(toys / "base_models" / TOY_LLAMA, None)
    assert find_reward_part(whole_run, start, toys / "toy-1") == whole_run / "part"


def test_a_stopped_run_goes_on_and_ends_where_the_whole_one_does(
    whole_run: Path, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_trl_run(tmp_path / "run", toys, "reward", options=OPTIONS)
    job = Job(run_dir)
    with monkeypatch.context() as patch:
        stop_after(job, 3, patch)
        with pytest.raises(Stopped):
            reward.main(job)
    assert not (run_dir / "manifest.json").exists()
    reward.main(Job(run_dir))
    expected = load_file(whole_run / "part" / "adapter_model.safetensors")
    for name, weight in load_file(run_dir / "part" / "adapter_model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], msg=name)


def test_a_costlier_mistake_asks_for_a_wider_lead() -> None:
    prompt = LabelPrompt.build(make_tokenizer(), load_schema(), "Label the text.")
    row = PairRow("p", "hello", GLAD, SAD, margin=10.0, weight=0.75)
    encoded = reward.encode_pair(row, prompt, RewardOptions(margin_scale=0.1))
    assert (encoded["margin"], encoded["weight"]) == (1.0, 0.75)
    assert encoded["chosen_ids"] == prompt.encode_prompt("hello", 96) + prompt.encode_line(GLAD)


def test_doubt_is_label_smoothing_against_a_hand_computed_value() -> None:
    # Leads 2 and -1 less margins 1 and 0: x = 1, -1. (1 - w) x = .25 * 1 and .5 * -1, their mean -.125.
    rewards = torch.tensor([2.0, 0.0, 0.0, 1.0])
    penalty = reward.doubt_penalty(rewards, torch.tensor([1.0, 0.0]), torch.tensor([0.75, 0.5]))
    assert penalty.item() == pytest.approx(-0.125)


def test_refuses_a_run_without_pairs_and_names_the_cure(toys: Path, tmp_path: Path) -> None:
    run_dir = make_trl_run(tmp_path, toys, "reward", options=OPTIONS)
    (run_dir / "data" / PAIRS_FILE).unlink()
    with pytest.raises(ConfigError, match="no pairs to learn from: corrections make them"):
        reward.main(Job(run_dir))


def test_an_unsure_pair_is_learned_less_far(whole_run: Path, toys: Path, tmp_path: Path) -> None:
    run_dir = make_trl_run(tmp_path, toys, "reward", options=OPTIONS)
    write_preferences(run_dir / "data" / PAIRS_FILE, make_pairs(make_texts(40), weight=0.6))
    reward.main(Job(run_dir))
    assert read_metric(run_dir, "lead")[-1] < 0.8 * read_metric(whole_run, "lead")[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_sha256": "0" * 64}, "stands on toy-llama, the policy on another base model"),
        ({"arm": "llm", "kind": "sft"}, "is a sft run, expected a reward run"),
    ],
)
def test_refuses_a_reward_model_that_does_not_fit(
    whole_run: Path, bases: Path, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    other = tmp_path / "other"
    (other / "part").mkdir(parents=True)
    (other / "manifest.json").write_text(json.dumps(read_manifest(whole_run) | change), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        find_reward_part(other, Start(bases / TOY_LLAMA, None), None)


def test_refuses_a_reward_model_of_another_prompt(whole_run: Path, bases: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Something else.", encoding="utf-8")
    assert hash_prompt(tmp_path) != hash_prompt(None)
    with pytest.raises(ConfigError, match="was trained on another prompt"):
        find_reward_part(whole_run, Start(bases / TOY_LLAMA, None), tmp_path)
