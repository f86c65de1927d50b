"""An arm that is taught to write label lines by itself: the tokens between the labels, and nothing about the labels."""

from pathlib import Path

import pytest

from classifier.llm_prompt import LabelPrompt
from classifier.schema import load_schema
from tests.classifier.toys import TOY_LLAMA, TOY_PROMPT, make_tokenizer
from tests.training.toyruns import GLAD
from tests.training.trlruns import SHORT, make_texts, make_trl_run, read_metric
from training.jobs import line_form
from training.jobs.config import PpoOptions
from training.jobs.label_lines import IGNORED
from training.jobs.llm_training import load_model
from training.jobs.runtime import Job, Stopped
from training.jobs.start import Start


@pytest.fixture(scope="module")
def prompt() -> LabelPrompt:
    return LabelPrompt.build(make_tokenizer(), load_schema(), TOY_PROMPT)


def test_all_of_a_line_but_its_labels_is_wanted(prompt: LabelPrompt) -> None:
    row = line_form.encode_form("hello", GLAD, prompt, 32)
    assert row.ids == prompt.encode_text("hello", 32) + prompt.suffix + prompt.encode_line(GLAD)
    wanted = [token for token in row.labels if token != IGNORED]
    assert prompt.tokenizer.decode(wanted[:-1]) == "emotion:, sentiment:, stress:, risk:"
    assert wanted[-1] == prompt.eos


def test_the_form_is_learned_until_it_is_known(toys: Path, tmp_path: Path, prompt: LabelPrompt) -> None:
    job = Job(make_trl_run(tmp_path, toys, "ppo", options={**SHORT, "form_steps": 12}))
    options = job.config.options
    assert isinstance(options, PpoOptions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_form, "RATE", 0.02)
        patch.setattr(line_form, "MASTERED", 2.0)
        model = load_model(Start(toys / "base_models" / TOY_LLAMA, None), options)
        line_form.teach_form(job, model, prompt, make_texts(12), options)
    losses = read_metric(tmp_path, "form_loss")
    assert losses[-1] < 2.0 < losses[-2]
    assert 2 < len(losses) < 12


def test_a_stop_is_heard_between_two_steps(toys: Path, tmp_path: Path, prompt: LabelPrompt) -> None:
    job = Job(make_trl_run(tmp_path, toys, "ppo", options=SHORT))
    job.stop.is_set = True
    options = job.config.options
    assert isinstance(options, PpoOptions)
    model = load_model(Start(toys / "base_models" / TOY_LLAMA, None), options)
    with pytest.raises(Stopped):
        line_form.teach_form(job, model, prompt, make_texts(4), options)
