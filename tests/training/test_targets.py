"""The loss: hand-computed values, and what must not get a gradient."""

import math

import pytest
import torch

from classifier.schema import load_schema
from training.corpus.rows import Label, Row
from training.jobs.targets import (
    Targets,
    batch_loss,
    calibrated_loss,
    encode_targets,
    even_weights,
    known_weight,
    rarity_weights,
    slot_losses,
)

SCHEMA = load_schema()


def risk_targets(label: Label | None, weight: float = 1.0) -> Targets:
    row = Row("r", "t", {} if label is None else {"risk": label}, "s", weight)
    return encode_targets([row], SCHEMA, even_weights(SCHEMA))["risk"]


LOGITS = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
"""Probabilities 0.1, 0.2, 0.3, 0.4 for none, low, medium, high."""


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("medium", -math.log(0.3)),
        ("none|low", -math.log(0.3)),
        ("medium|high", -math.log(0.7)),
        ({"none": 0.25, "high": 0.75}, -(0.25 * math.log(0.1) + 0.75 * math.log(0.4))),
    ],
)
def test_loss_of_a_value_a_set_and_a_distribution(label: Label, expected: float) -> None:
    assert slot_losses(LOGITS, risk_targets(label)).item() == pytest.approx(expected, abs=1e-6)


def test_a_weight_multiplies_the_loss() -> None:
    once, thrice = (slot_losses(LOGITS, risk_targets("low", weight)).item() for weight in (1.0, 3.0))
    assert thrice == pytest.approx(3 * once)


def test_an_unknown_dimension_gives_no_gradient_to_its_head() -> None:
    logits = {
        dimension.name: torch.randn(2, len(dimension.names), requires_grad=True) for dimension in SCHEMA.dimensions
    }
    rows = [Row("a", "t", {"risk": "high", "stress": "low"}, "s"), Row("b", "t", {"risk": "none|low"}, "s")]
    targets = encode_targets(rows, SCHEMA, even_weights(SCHEMA))
    (batch_loss(logits, targets) / known_weight(targets)).backward()  # type: ignore[no-untyped-call]
    gradients = {name: tensor.grad for name, tensor in logits.items() if tensor.grad is not None}
    assert torch.count_nonzero(gradients["emotion"]) == 0
    assert torch.count_nonzero(gradients["sentiment"]) == 0
    assert torch.count_nonzero(gradients["stress"][0]) == 3
    assert torch.count_nonzero(gradients["stress"][1]) == 0
    assert torch.count_nonzero(gradients["risk"]) == 8
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_the_divisor_counts_known_slots_only() -> None:
    rows = [Row("a", "t", {"risk": "high", "stress": "low"}, "s", 2.0), Row("b", "t", {"risk": "none"}, "s")]
    assert known_weight(encode_targets(rows, SCHEMA, even_weights(SCHEMA))).item() == pytest.approx(5.0)


def test_rare_values_weigh_more_and_the_mean_over_rows_is_one() -> None:
    rows = [Row(str(n), "t", {"risk": "none" if n < 16 else "high"}, "s") for n in range(20)]
    weights = rarity_weights(rows, SCHEMA)["risk"]
    # 1/sqrt(16) against 1/sqrt(4): twice the weight; 16 * w + 4 * 2w = 20.
    assert weights[0].item() == pytest.approx(20 / 24)
    assert weights[3].item() == pytest.approx(40 / 24)
    assert weights[1].item() == 1.0


def test_a_model_that_is_only_too_sure_is_not_the_worse_one() -> None:
    # Right three times of four: the best it can say is 3/4, whatever confidence it claims.
    targets = encode_targets(
        [Row(str(n), "t", {"risk": label}, "s") for n, label in enumerate(["none"] * 3 + ["low"])],
        SCHEMA,
        even_weights(SCHEMA),
    )["risk"]
    claimed = torch.tensor([[0.75, 0.25, 1e-9, 1e-9]]).log().expand(4, -1)
    entropy = -(3 * math.log(0.75) + math.log(0.25))
    assert calibrated_loss(claimed, targets) == pytest.approx(entropy, abs=1e-4)
    assert calibrated_loss(4 * claimed, targets) == pytest.approx(entropy, abs=1e-4)
    assert slot_losses(4 * claimed, targets).sum().item() > 1.5 * entropy
