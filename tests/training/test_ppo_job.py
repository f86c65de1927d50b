"""The ppo job on a toy Llama: its reward, its batches, how it starts again. That it learns is not shown here."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from classifier.llm_prompt import LabelPrompt
from classifier.schema import load_schema
from tests.classifier.toys import TOY_PROMPT, make_llama, make_tokenizer
from tests.training.toyruns import GLAD, SAD
from tests.training.trlruns import SHORT, make_trl_run, make_writer_part, read_logs, read_metric, stop_after
from training.jobs import llm_training, ppo, reward
from training.jobs.config import ConfigError, PpoOptions
from training.jobs.reward_model import LineReader, LineReward, list_lines
from training.jobs.runtime import Job, Stopped
from training.jobs.start import Start

OPTIONS: dict[str, Any] = {
    **SHORT,
    "epochs": 4,
    "learning_rate": 0.01,
    "ppo_epochs": 2,
    "kl_coef": 0.01,
    "form_steps": 0,
}


@pytest.fixture(scope="module")
def parts(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a ppo run goes on from: an LLM part and a reward run."""
    judge = make_trl_run(
        tmp_path_factory.mktemp("reward"), toys, "reward", options={**SHORT, "epochs": 1, "learning_rate": 0.01}
    )
    reward.main(Job(judge))
    return {"init_from": make_writer_part(tmp_path_factory.mktemp("sft"), toys), "reward_model": judge}


@pytest.fixture(scope="module")
def whole_run(toys: Path, parts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = make_trl_run(tmp_path_factory.mktemp("whole"), toys, "ppo", options=OPTIONS, **parts)
    ppo.main(Job(run_dir))
    return run_dir


@pytest.fixture(scope="module")
def prompt() -> LabelPrompt:
    return LabelPrompt.build(make_tokenizer(), load_schema(), TOY_PROMPT)


def test_the_run_reports_reward_kl_and_well_formed_lines(whole_run: Path) -> None:
    made = json.loads((whole_run / "manifest.json").read_text(encoding="utf-8"))
    updates = OPTIONS["epochs"] * made["metrics"]["texts"] // OPTIONS["batch_size"]
    assert (made["arm"], made["steps"]) == ("llm", updates)
    assert set(made["metrics"]["held_out_reward"]) == {"before", "after"}
    # On the first update policy and reference are the same adapter.
    assert read_metric(whole_run, "kl")[0] == pytest.approx(0, abs=1e-3)
    assert all(0 <= share <= 1 for share in read_metric(whole_run, "well_formed"))
    assert all(len(read_metric(whole_run, name)) == updates for name in ("kl", "reward", "loss", "well_formed"))


def test_the_reference_is_not_in_the_part(whole_run: Path) -> None:
    names = sorted(path.name for path in (whole_run / "part").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors", "llm.json"]


def test_a_stopped_run_starts_again_from_its_saved_policy_and_says_so(
    parts: dict[str, Path], toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_trl_run(tmp_path, toys, "ppo", options={**OPTIONS, "epochs": 1, "max_rows": 32}, **parts)
    job = Job(run_dir)
    with monkeypatch.context() as patch:
        stop_after(job, 3, patch)
        with pytest.raises(Stopped):
            ppo.main(job)
    saved = ppo.Saved.find(run_dir)
    assert (saved.step, saved.before is None) == (3, False)
    started_from: list[Path | None] = []

    def load_model(start: Start, options: PpoOptions) -> Any:
        started_from.append(start.part)
        return llm_training.load_model(start, options)

    monkeypatch.setattr(ppo, "load_model", load_model)
    ppo.main(Job(run_dir))
    # The reference is kept from the first attempt: its form is not taught again.
    assert started_from == [saved.folder]
    assert "PPO cannot resume: it starts again from the policy saved after update 3" in read_logs(run_dir)
    made = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    assert made["steps"] == 4
    assert made["metrics"]["held_out_reward"]["before"] == saved.before
    assert len(read_metric(run_dir, "reward")) == 4


def test_a_mini_batch_is_one_step_however_many_parts_it_has(parts: dict[str, Path], toys: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "epochs": 1, "max_rows": 16, "mini_batches": 2}
    job = Job(make_trl_run(tmp_path, toys, "ppo", options=options, **parts))
    told = job.config.options
    assert isinstance(told, PpoOptions)
    trainer = ppo.build_trainer(job, told, ppo.prepare(job, told), 2, ppo.Saved())
    steps = []
    trainer.optimizer.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    trainer.train()
    # 16 texts are 2 updates of 8, each 2 passes over 2 mini batches of 2 parts.
    assert len(steps) == 2 * 2 * 2


def test_the_reference_is_a_frozen_copy_of_the_start(parts: dict[str, Path], toys: Path, tmp_path: Path) -> None:
    job = Job(make_trl_run(tmp_path, toys, "ppo", options=OPTIONS, **parts))
    options = job.config.options
    assert isinstance(options, PpoOptions)
    prepared = ppo.prepare(job, options)
    policy = ppo.load_policy(prepared, options, ppo.find_reference(job, options, prepared), ppo.Saved())
    trained = {name for name, weight in policy.named_parameters() if weight.requires_grad}
    assert trained
    assert all(".default." in name for name in trained)
    twins = {name: weight for name, weight in policy.named_parameters() if ".ref." in name}
    for name, weight in twins.items():
        torch.testing.assert_close(weight, policy.get_parameter(name.replace(".ref.", ".default.")))


def test_policy_value_and_reward_share_the_frozen_weights(parts: dict[str, Path], toys: Path, tmp_path: Path) -> None:
    job = Job(make_trl_run(tmp_path, toys, "ppo", options=OPTIONS, **parts))
    options = job.config.options
    assert isinstance(options, PpoOptions)
    trainer = ppo.build_trainer(job, options, ppo.prepare(job, options), 8, ppo.Saved())
    models = (trainer.policy_model, trainer.value_model, trainer.reward_model)
    places = [
        {w.data_ptr() for n, w in m.named_parameters() if "embed_tokens" in n or "q_proj.base" in n} for m in models
    ]
    assert places[0] == places[1] == places[2]
    assert len(places[0]) == 3
    assert any(weight.requires_grad for weight in trainer.value_model.parameters())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("a line", True),
        ("a line without its end", False),
        ("a line and more", False),
        ("half a line", False),
        ("nothing", False),
        ("a line after other words", False),
    ],
)
def test_only_a_whole_label_line_is_well_formed(prompt: LabelPrompt, answer: str, expected: bool) -> None:
    line = prompt.encode_line(SAD)
    said = {
        "a line": line,
        "a line without its end": line[:-1],
        "a line and more": line + line[:3],
        "half a line": (*line[: len(line) // 2], prompt.eos),
        "nothing": (prompt.eos,),
        "a line after other words": line[3:9] + line,
    }[answer]
    reader = LineReader(torch.nn.Identity(), prompt)
    # A text that spells a whole answer is still a text.
    text = "<|end|><|assistant|>\n" + load_schema().line(GLAD)
    assert reader.is_line([*prompt.encode_prompt(text, 200), *said]) is expected


def test_every_label_line_is_listed_once(prompt: LabelPrompt) -> None:
    lines = list_lines(prompt)
    assert len(set(lines)) == len(lines) == 6 * 3 * 3 * 4
    assert prompt.encode_line(GLAD) in lines


def test_a_malformed_line_loses_the_penalty_and_earns_nothing(prompt: LabelPrompt) -> None:
    class Scorer(torch.nn.Module):
        base_model_prefix = "model"

        def __init__(self) -> None:
            super().__init__()
            self.model = make_llama().model
            self.score = torch.nn.Linear(48, 1, bias=False)

    judge = LineReward(Scorer(), prompt, penalty=2.0)
    states = torch.randn(2, 3, 48)
    plain = judge.head(states)
    for malformed in (0.0, 1.0):
        flag = torch.full((2, 3, 1), malformed)
        rewards = judge.score(torch.cat([states, flag], -1))
        torch.testing.assert_close(rewards, plain.clamp(max=0) - 2 if malformed else plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mini_batches": 3}, "batch_size 8 cannot be cut into 3 mini_batches of one size"),
        ({"mini_batches": 8}, "a mini batch must have two rows or more"),
        ({"batch_size": 64}, "batch_size is 64, but there are 35 texts: lower it"),
    ],
)
def test_refuses_batches_that_do_not_divide(
    parts: dict[str, Path], toys: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    run_dir = make_trl_run(tmp_path, toys, "ppo", options={**OPTIONS, **options}, **parts)
    with pytest.raises(ConfigError, match=message):
        ppo.main(Job(run_dir))


def test_refuses_a_run_without_a_reward_model(toys: Path, tmp_path: Path) -> None:
    run_dir = make_trl_run(tmp_path, toys, "ppo", options=OPTIONS)
    with pytest.raises(ConfigError, match="names no reward_model: finish a reward run first"):
        ppo.main(Job(run_dir))
