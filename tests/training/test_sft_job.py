"""The LLM job on a toy Llama: the same tokens as serving, one prefix for a batch, interruption."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from classifier.bundle import PROMPT_PATH
from classifier.llm import LlmArm
from classifier.llm_prompt import LabelPrompt
from classifier.schema import load_schema
from tests.classifier.toys import TOY_LLAMA, make_llama, make_tokenizer
from tests.training.toyruns import GLAD, make_run_dir
from training.corpus.rows import Label, Row
from training.jobs import sft
from training.jobs.label_lines import IGNORED, LineCollator, encode_line, encode_lines, line_loss
from training.jobs.runtime import Job, Stopped

FAST: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 0.02,
    "lora_rank": 4,
    "checkpoint_steps": 2,
    "max_tokens": 32,
}


@pytest.fixture(scope="module")
def prompt() -> LabelPrompt:
    return LabelPrompt.build(make_tokenizer(), load_schema(), "Label the text.")


def decode(prompt: LabelPrompt, ids: Any) -> str:
    return str(prompt.tokenizer.decode(list(ids)))


def test_a_full_row_is_what_serving_reads(prompt: LabelPrompt) -> None:
    line = encode_line(Row("r", "hello", GLAD, "s"), prompt, 32)
    assert line is not None
    assert line.ids == prompt.encode_text("hello", 32) + prompt.suffix + prompt.encode_line(GLAD)


def test_the_loss_falls_on_the_label_slots_alone(prompt: LabelPrompt) -> None:
    line = encode_line(Row("r", "hello", GLAD, "s"), prompt, 32)
    assert line is not None
    wanted = [token for token in line.labels if token != IGNORED]
    assert decode(prompt, wanted[:-1]) == " positive positive low none"
    assert wanted[-1] == prompt.eos
    assert all(label in (IGNORED, token) for token, label in zip(line.ids, line.labels, strict=True))


def test_an_unknown_dimension_is_not_in_the_line(prompt: LabelPrompt) -> None:
    labels: dict[str, Label] = {"sentiment": "negative", "stress": "low|high", "risk": {"low": 0.75, "none": 0.25}}
    line = encode_line(Row("r", "hello", labels, "s"), prompt, 32)
    assert line is not None
    said = decode(prompt, line.ids[len(prompt.encode_text("hello", 32) + prompt.suffix) :])
    assert said == "sentiment: negative, risk: low"
    assert prompt.eos not in line.labels


def test_noisy_slots_show_another_value_and_still_teach_the_true_one(prompt: LabelPrompt) -> None:
    row = Row("r", "hello", GLAD, "s")
    (line,) = encode_lines([row], prompt, 32, slot_noise=1.0)
    text = len(prompt.encode_text("hello", 32) + prompt.suffix)
    said = dict(slot.split(": ") for slot in decode(prompt, line.ids[text:-1]).split(", "))
    assert list(said) == list(GLAD)
    assert all(said[name] != GLAD[name] for name in ("emotion", "sentiment", "stress"))
    # Nothing follows the last slot, so there is nothing to protect from it.
    assert said["risk"] == GLAD["risk"]
    # The true value is taught up to the token where the two part, and none that stands behind a wrong one.
    lead, trie = prompt.leads[0], prompt.tries[0]
    true, shown = trie.paths["positive"], trie.paths[said["emotion"]]
    parting = next(at for at, pair in enumerate(zip(true, shown, strict=False)) if pair[0] != pair[1])
    slot = line.labels[text + len(lead) : text + len(lead) + len(shown)]
    assert slot == (*true[: parting + 1], *[IGNORED] * (len(shown) - parting - 1))


def test_noise_depends_on_seed_and_row_alone(prompt: LabelPrompt) -> None:
    rows = [Row(f"r{number}", "hello", GLAD, "s") for number in range(40)]
    once = encode_lines(rows, prompt, 32, slot_noise=0.5, seed=1)
    assert encode_lines(rows[20:], prompt, 32, slot_noise=0.5, seed=1) == once[20:]
    assert encode_lines(rows, prompt, 32, slot_noise=0.5, seed=2) != once
    plain = encode_lines(rows, prompt, 32)
    shown = sum(noisy.ids != clean.ids for noisy, clean in zip(once, plain, strict=True))
    assert 20 < shown < 40  # 1 - 0.5 ** 3 of them, 35, see at least one slot changed


def test_a_row_without_a_single_value_is_left_out(prompt: LabelPrompt) -> None:
    rows = [Row("a", "x", {"risk": "low|high"}, "s"), Row("b", "x", {"risk": {"low": 0.5, "high": 0.5}}, "s")]
    assert encode_lines(rows, prompt, 32) == []


def test_line_loss_against_a_hand_computed_value() -> None:
    # Two rows, three columns; probabilities 1/4 and 3/4 of a two-token vocabulary at each position.
    hidden = torch.tensor([[1.0, 3.0]]).log().expand(2, 3, 2)
    labels = torch.tensor([[IGNORED, 1, 0], [IGNORED, IGNORED, 1]])
    weight = torch.tensor([1.0, 2.0])
    # (-log .75 - log .25) * 1 - log .75 * 2, over weights 1 + 1 + 2.
    assert line_loss(hidden, torch.nn.Identity(), labels, weight).item() == pytest.approx(0.5623, abs=1e-4)


def test_reading_the_prefix_once_gives_the_same_loss_and_gradient(prompt: LabelPrompt) -> None:
    rows = [Row("a", "hi", GLAD, "s"), Row("b", "a much longer text than that", {"risk": "low"}, "s", 2.0)]
    batch = LineCollator(prompt.eos)([line.as_dict() for line in encode_lines(rows, prompt, 64)])
    losses, gradients = [], []
    for read in (sft.read_after_prefix, sft.read_whole):
        model = make_llama(seed=3).train()
        hidden = read(model, prompt.prefix, batch["input_ids"], batch["attention_mask"])
        loss = line_loss(hidden, model.get_output_embeddings(), batch["labels"], batch["weight"])
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        gradients.append(model.model.layers[0].self_attn.k_proj.weight.grad)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_only_the_upper_layers_are_adapted(toys: Path, tmp_path: Path) -> None:
    run_dir = make_run_dir(tmp_path, toys / "base_models", "sft", **FAST | {"lora_layers": 1, "epochs": 1})
    sft.main(Job(run_dir))
    names = load_file(run_dir / "part" / "adapter_model.safetensors")
    assert names
    assert all(".layers.1." in name for name in names)


@pytest.fixture(scope="module")
def whole_run(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = make_run_dir(tmp_path_factory.mktemp("whole"), toys / "base_models", "sft", **FAST)
    sft.main(Job(run_dir))
    return run_dir


def losses_of(run_dir: Path) -> list[float]:
    events = map(json.loads, (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return [event["value"] for event in events if event["kind"] == "metric" and event["name"] == "loss"]


def test_the_loss_falls_and_the_part_serves(whole_run: Path, bases: Path) -> None:
    losses = losses_of(whole_run)
    assert len(losses) == 6
    assert losses[-1] < 0.6 * losses[0]
    arm = LlmArm.load(whole_run / "part", bases / TOY_LLAMA, load_schema(), PROMPT_PATH.read_text(encoding="utf-8"))
    (scores,) = arm.score(["x 1 "])
    # Both labels that were ever seen stand out from those that never were.
    assert sum(scores.probabilities["sentiment"][name] for name in ("positive", "negative")) > 0.9


def test_the_part_is_small_and_holds_no_path_of_this_machine(whole_run: Path, bases: Path) -> None:
    weights = load_file(whole_run / "part" / "adapter_model.safetensors")
    assert {row.dtype for row in weights.values()} == {torch.float16}
    assert str(bases) not in (whole_run / "part" / "adapter_config.json").read_text(encoding="utf-8")
    assert sorted(path.suffix for path in (whole_run / "part").iterdir()) == [".json", ".json", ".safetensors"]


def test_a_stopped_run_goes_on_and_ends_where_the_whole_one_does(
    whole_run: Path, bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run_dir(tmp_path / "run", bases, "sft", **FAST)
    job = Job(run_dir)
    with monkeypatch.context() as patch:
        progress = job.events.progress

        def stop_at_three(stage: str, done: int, total: int) -> None:
            progress(stage, done, total)
            job.stop.is_set = done >= 3

        patch.setattr(job.events, "progress", stop_at_three)
        with pytest.raises(Stopped):
            sft.main(job)
    assert not (run_dir / "manifest.json").exists()
    sft.main(Job(run_dir))
    expected = load_file(whole_run / "part" / "adapter_model.safetensors")
    for name, weight in load_file(run_dir / "part" / "adapter_model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], msg=name)
    assert losses_of(run_dir)[-3:] == pytest.approx(losses_of(whole_run)[-3:], rel=1e-3)
