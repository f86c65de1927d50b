"""The kto job on a toy Llama: verdicts as they are, the start as the reference, a part that serves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from classifier.llm import LlmArm
from classifier.schema import load_schema
from tests.classifier.toys import TOY_LLAMA, TOY_PROMPT
from tests.training.toyruns import GLAD
from tests.training.trlruns import SHORT, make_trl_run, make_writer_part, read_metric, stop_after
from training.corpus.preferences import KTO_FILE, KtoRow
from training.jobs import kto
from training.jobs.config import ConfigError, KtoOptions
from training.jobs.runtime import Job, Stopped

OPTIONS: dict[str, Any] = {**SHORT, "epochs": 2, "learning_rate": 0.005}


@pytest.fixture(scope="module")
def sft_part(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_writer_part(tmp_path_factory.mktemp("sft"), toys)


@pytest.fixture(scope="module")
def whole_run(toys: Path, sft_part: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = make_trl_run(tmp_path_factory.mktemp("whole"), toys, "kto", options=OPTIONS, init_from=sft_part)
    kto.main(Job(run_dir))
    return run_dir


def make_row(weight: float, is_desirable: bool) -> KtoRow:
    return KtoRow("v", "x", GLAD, is_desirable, weight)


def load_arm(part: Path, toys: Path) -> LlmArm:
    return LlmArm.load(part, toys / "base_models" / TOY_LLAMA, load_schema(), TOY_PROMPT)


def test_right_answers_become_likelier_and_wrong_ones_less_likely(whole_run: Path, sft_part: Path, toys: Path) -> None:
    texts = [f"x {number} " for number in range(4)] + [f"y {number} " for number in range(4)]

    def ask(part: Path) -> float:
        return sum(scores.probabilities["emotion"]["positive"] for scores in load_arm(part, toys).score(texts))

    assert ask(whole_run / "part") > ask(sft_part) + 0.5
    # Against the reference, which is the adapter at the start: zero for both at the first step.
    assert read_metric(whole_run, "reward_right")[-1] > read_metric(whole_run, "reward_wrong")[-1]
    assert read_metric(whole_run, "reward_wrong")[0] == 0.0


def test_the_manifest_says_how_many_held_out_verdicts_it_agrees_with(whole_run: Path) -> None:
    made = json.loads((whole_run / "manifest.json").read_text(encoding="utf-8"))
    assert made["arm"] == "llm"
    assert made["metrics"]["verdicts"] + made["metrics"]["held_out_verdicts"] == 40
    agreement = made["metrics"]["held_out_agreement"]
    assert 0 <= agreement["before"] <= agreement["after"] <= 1


def test_the_reference_is_not_in_the_part(whole_run: Path) -> None:
    assert sorted(path.name for path in (whole_run / "part").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "llm.json",
    ]


def test_a_stopped_run_goes_on_and_ends_where_the_whole_one_does(
    whole_run: Path, sft_part: Path, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_trl_run(tmp_path / "run", toys, "kto", options=OPTIONS, init_from=sft_part)
    job = Job(run_dir)
    with monkeypatch.context() as patch:
        stop_after(job, 3, patch)
        with pytest.raises(Stopped):
            kto.main(job)
    assert not (run_dir / "manifest.json").exists()
    kto.main(Job(run_dir))
    expected = load_file(whole_run / "part" / "adapter_model.safetensors")
    for name, weight in load_file(run_dir / "part" / "adapter_model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], msg=name)


def test_the_paper_s_loss_runs_on_batches_of_neighbours(sft_part: Path, toys: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "loss": "kto", "epochs": 1}
    run_dir = make_trl_run(tmp_path, toys, "kto", options=options, init_from=sft_part)
    kto.main(Job(run_dir))
    assert len(read_metric(run_dir, "kl")) == 5


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        # Few desirable: 1:1. Within 1:1 and 4:3: left alone. Many: 4:3, so 8 : 3 * 2. The mean weight is 1.
        (([1.0], [1.0, 1.0, 1.0]), (3 / 1.5, 1 / 1.5)),
        (([1.0, 1.0, 1.0], [1.0, 1.5]), (1.0, 1.0)),
        (([4.0, 4.0], [3.0]), (11 / 14, 2 * 11 / 14)),
        (([1.0], []), (1.0, 1.0)),
    ],
)
def test_the_kinds_are_balanced(weights: tuple[list[float], list[float]], expected: tuple[float, float]) -> None:
    rows = [make_row(weight, True) for weight in weights[0]] + [make_row(weight, False) for weight in weights[1]]
    assert kto.balance_kinds(rows) == pytest.approx(expected)


def test_a_row_of_no_weight_moves_nothing(sft_part: Path, toys: Path, tmp_path: Path) -> None:
    job = Job(make_trl_run(tmp_path, toys, "kto", options=OPTIONS, init_from=sft_part))
    options = job.config.options
    assert isinstance(options, KtoOptions)
    trainer: Any = kto.build_trainer(job, options, kto.prepare(job, options), 1)
    rows = [trainer.train_dataset[place] for place in range(4)]
    whole = trainer.compute_loss(trainer.model, trainer.data_collator([{**row, "weight": 1.0} for row in rows]))
    none = trainer.compute_loss(trainer.model, trainer.data_collator([{**row, "weight": 0.0} for row in rows]))
    assert whole.item() > 0.2
    assert none.item() == 0.0


def test_refuses_a_run_without_verdicts_and_names_the_cure(toys: Path, tmp_path: Path) -> None:
    run_dir = make_trl_run(tmp_path, toys, "kto", options=OPTIONS)
    (run_dir / "data" / KTO_FILE).unlink()
    with pytest.raises(ConfigError, match="fewer than two verdicts to learn from: answers make them"):
        kto.main(Job(run_dir))
