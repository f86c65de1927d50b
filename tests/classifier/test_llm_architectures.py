"""Whatever a decoder does to its scores on the way out, the arm's answers are those of the whole model."""

from typing import Any

import pytest
import torch
import transformers

from classifier.llm import LlmArm
from classifier.llm_load import GROUPED_ATTENTION
from classifier.llm_prompt import LabelPrompt
from tests.classifier.exhaustive import score_exhaustively
from tests.classifier.test_llm_scoring import SCHEMA, TEXTS, assert_same
from tests.classifier.toys import TOY_PROMPT, make_llama, make_tokenizer

SIZES = {
    "vocab_size": len(make_tokenizer()),
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "eos_token_id": 5,
    "pad_token_id": 0,
}
Family = tuple[str, dict[str, Any]]
PLAIN_HEADS: dict[str, Family] = {
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "phi3": ("Phi3", {}),
    "tied": ("Llama", {"tie_word_embeddings": True}),
}
OTHER_HEADS: dict[str, Family] = {
    "capped": ("Gemma2", {"head_dim": 12, "query_pre_attn_scalar": 12, "final_logit_softcapping": 2.0}),
    "scaled": ("Granite", {"logits_scaling": 4.0}),
    "biased": ("Phi", {"num_key_value_heads": 4}),
}


@pytest.fixture(autouse=True)
def _large_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy tokens are bytes: with the usual budget each text would be a batch of its own."""
    monkeypatch.setattr("classifier.llm.CPU_BATCH_TOKENS", 4096)


def make_model(family: str, extra: dict[str, Any]) -> Any:
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**(SIZES | extra))
    # What the loader chooses too: SDPA has no place for a cap inside.
    implementation = "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"
    model = getattr(transformers, f"{family}ForCausalLM")._from_config(config, attn_implementation=implementation)
    if family == "Phi":
        torch.nn.init.normal_(model.lm_head.bias)
    return model.eval()


def make_arm(model: Any, max_tokens: int = 100) -> LlmArm:
    return LlmArm(model, LabelPrompt.build(make_tokenizer(), SCHEMA, TOY_PROMPT), max_tokens=max_tokens)


def expect(arm: LlmArm) -> list[dict[str, dict[str, float]]]:
    return [score_exhaustively(arm.model, arm.prompt, text, arm.max_tokens) for text in TEXTS]


@pytest.mark.parametrize("name", PLAIN_HEADS)
def test_a_plain_head_is_read_for_the_label_tokens_alone(name: str) -> None:
    arm = make_arm(make_model(*PLAIN_HEADS[name]))
    assert arm._head_rows is not None
    assert_same(arm.score(TEXTS), expect(arm))


@pytest.mark.parametrize("name", OTHER_HEADS)
def test_a_head_that_is_more_than_a_product_is_left_to_the_model(name: str) -> None:
    arm = make_arm(make_model(*OTHER_HEADS[name]))
    assert arm._head_rows is None
    assert_same(arm.score(TEXTS), expect(arm))


def test_grouped_attention_equals_the_ordinary_one() -> None:
    arm = make_arm(make_llama(seed=4))
    expected = expect(arm)
    arm.model.set_attn_implementation(GROUPED_ATTENTION)
    assert_same(make_arm(arm.model).score(TEXTS), expected)


def test_no_text_reaches_past_the_attention_window() -> None:
    """Beyond it a sliding model forgets the prompt, and its windowed mask would differ from ours."""
    arm = make_arm(make_model("Mistral", {"sliding_window": 220}), max_tokens=500)
    assert arm.max_tokens < 220 - len(arm.prompt.prefix)
    text = "a long way home " * 40
    naive = score_exhaustively(arm.model, arm.prompt, text, arm.max_tokens)
    assert_same(arm.score([text, text[:20]])[:1], [naive])


def test_scoring_again_after_a_longer_text_gives_the_same() -> None:
    """A text alone writes over the cache of the one before it."""
    arm = make_arm(make_llama(seed=5))
    before = arm.score(["ok"])
    arm.score(["a much longer text than the one before, so that the room has to grow " * 2])
    assert_same(arm.score(["ok"]), [dict(score.probabilities) for score in before])  # type: ignore[arg-type]
