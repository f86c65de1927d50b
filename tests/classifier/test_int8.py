"""8-bit linears: what they may differ by, and that the arm with them still answers like itself without."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classifier.int8 import Int8Linear, observe_linears, replace_linears
from classifier.llm import LlmArm
from classifier.llm_prompt import LabelPrompt
from tests.classifier.test_llm_scoring import SCHEMA, TEXTS, random_draft
from tests.classifier.toys import TOY_PROMPT, make_llama, make_tokenizer


class Block(nn.Module):
    """Two siblings on one input, and a third linear on another."""

    def __init__(self, *, bias: bool = False) -> None:
        super().__init__()
        self.left = nn.Linear(64, 32, bias=bias)
        self.right = nn.Linear(64, 16)
        self.out = nn.Linear(48, 8, bias=bias)

    def forward(self, given: Tensor) -> Tensor:
        return self.out(torch.cat([self.left(given), self.right(given)], -1).tanh())  # type: ignore[no-any-return]


def make_inputs(rows: int = 20, *, outlier: float = 1.0) -> Tensor:
    given = torch.randn(2, rows, 64, generator=torch.Generator().manual_seed(1))
    given[..., 7] *= outlier
    return given


def make_block(*, bias: bool = False, outlier: float = 1.0) -> Block:
    """The weights of the huge channel are as small as it is large: it matters no more than the others."""
    torch.manual_seed(2)
    block = Block(bias=bias)
    with torch.no_grad():
        for linear in (block.left, block.right):
            linear.weight[:, 7] /= outlier
    return block


def quantise(block: Block, given: Tensor) -> Block:
    with observe_linears(block) as observer:
        block(given)
    replace_linears(block, observer)
    return block


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("outlier", [1.0, 500.0])
def test_answers_stay_close_even_with_one_huge_channel(bias: bool, outlier: float) -> None:
    block, given = make_block(bias=bias, outlier=outlier), make_inputs(outlier=outlier)
    with torch.inference_mode():
        expected = block(given)
        got = quantise(block, given)(given)
    assert got.shape == expected.shape
    error = float((got - expected).norm() / expected.norm())
    assert 0 < error < 0.02


def test_one_huge_channel_would_drown_the_rest_without_care(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would prove nothing."""
    block, given = make_block(outlier=500.0), make_inputs(outlier=500.0)
    monkeypatch.setattr("classifier.int8._smoothing", lambda peaks, weight: torch.ones_like(peaks))
    monkeypatch.setattr("classifier.int8.MAX_OUTLIERS", 0)
    with torch.inference_mode():
        expected = block(given)
        got = quantise(block, given)(given)
    assert float((got - expected).norm() / expected.norm()) > 0.2


def test_a_channel_large_on_both_sides_leaves_the_others_their_precision() -> None:
    """Nothing can be evened out there: it stays in float32."""
    torch.manual_seed(2)
    linear, given = nn.Linear(64, 32, bias=False), make_inputs(outlier=10_000.0)
    block = nn.Sequential(linear)
    with torch.inference_mode():
        huge = given[..., 7:8] * linear.weight[:, 7]
        expected = linear(given) - huge
        with observe_linears(block) as observer:
            block(given)
        replace_linears(block, observer)
        error = block(given) - huge - expected
    assert float(error.norm() / expected.norm()) < 0.03


def test_siblings_are_multiplied_once() -> None:
    block = quantise(make_block(), make_inputs())
    assert isinstance(block.left, Int8Linear)
    assert isinstance(block.right, Int8Linear)
    assert isinstance(block.out, Int8Linear)
    assert block.left.core is block.right.core
    assert block.left.core is not block.out.core


def test_a_sibling_asked_alone_answers_for_its_own_input() -> None:
    block, first, second = quantise(make_block(), make_inputs()), make_inputs(3), make_inputs(5) * 2
    with torch.inference_mode():
        for given in (first, second, first):
            wanted = make_block().right(given)
            assert torch.linalg.vector_norm(block.right(given) - wanted) < 0.02 * torch.linalg.vector_norm(wanted)


def test_rows_do_not_depend_on_their_company() -> None:
    """One scale for a whole batch would make a text's answer depend on the texts beside it."""
    block, given = quantise(make_block(), make_inputs()), make_inputs()
    with torch.inference_mode():
        together = block(torch.cat([given[:1], 1000 * given[1:]]))[:1]
        torch.testing.assert_close(together, block(given[:1]), rtol=0, atol=0.02)


@pytest.fixture
def arms() -> tuple[LlmArm, LlmArm]:
    prompt = LabelPrompt.build(make_tokenizer(), SCHEMA, TOY_PROMPT)
    full, small = (LlmArm(make_llama(seed=6), prompt, max_tokens=100) for _ in range(2))
    small.use_int8()
    return full, small


def test_an_int8_arm_answers_nearly_like_the_full_one(arms: tuple[LlmArm, LlmArm]) -> None:
    full, small = arms
    linears = [module for module in small.model.modules() if type(module) is nn.Linear]
    assert linears == [small.model.get_output_embeddings()]
    for name in SCHEMA.names:
        wanted, got = (
            np.array([list(score.probabilities[name].values()) for score in arm.score(TEXTS)]) for arm in (full, small)
        )
        assert np.abs(wanted - got).mean() < 0.05


def test_drafts_hardly_change_an_int8_arms_answers(arms: tuple[LlmArm, LlmArm]) -> None:
    """The kernel takes its scale from all rows of a pass, so their company shows in the last of the 8 bits."""
    small, rng = arms[1], random.Random(5)
    plain, drafted = small.score(TEXTS), small.score(TEXTS, [random_draft(rng) for _ in TEXTS])
    for before, after in zip(plain, drafted, strict=True):
        for name, row in before.probabilities.items():
            np.testing.assert_allclose(list(after.probabilities[name].values()), list(row.values()), rtol=0, atol=0.02)
