"""The maths of label_ppo against hand-computed literals, exact gradients, and bandits whose optimum is known."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from training.jobs.ppo_math import (
    RewardForm,
    center,
    clip_surrogate,
    diverge,
    expect,
    judge_policy,
    shape_rewards,
)

FORMS: tuple[RewardForm, ...] = ("cost", "brier")
P = torch.tensor([[0.5, 0.3, 0.2]])
REWARDS = torch.tensor([[1.0, -0.4, 0.0]])
KNOWN = torch.tensor([[True, True, False]])


def close(found: Tensor, wanted: object) -> None:
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-6, rtol=0)


def test_an_unknown_reward_is_worth_nothing_in_either_form() -> None:
    lure = torch.tensor([[1.0, -0.4, 9.0]])
    close(shape_rewards(P, lure, KNOWN, "cost"), [[1.0, -0.4, 0.0]])
    # right: 1 - 0.5; wrong: 0 - 0.3
    close(shape_rewards(P, lure, KNOWN, "brier"), [[0.5, -0.3, 0.0]])


def test_the_baseline_is_the_exact_expected_reward() -> None:
    close(expect(P, REWARDS), [0.38])  # 0.5 - 0.12
    advantages = center(P, REWARDS)
    close(advantages, [[0.62, -0.78, -0.38]])
    close(expect(P, advantages), [0.0])


def test_the_clip_holds_back_what_a_round_has_already_gained() -> None:
    old = torch.tensor([[0.5, 0.3, 0.2]]).log()
    new = torch.tensor([[0.65, 0.25, 0.1]]).log()
    advantages = torch.tensor([[0.62, -0.78, -0.38]])
    found = clip_surrogate(new, old, advantages, 0.2)
    # rho = 1.3, 0.8333, 0.5. Clipped to 1.2, 0.8333, 0.8: 0.5*1.2*0.62 - 0.25*0.78 - 0.2*0.8*0.38
    close(found.objective, [0.1162])
    close(found.share, [0.7])  # the first and the third value's share of the old policy


def test_the_clip_never_holds_back_the_way_home() -> None:
    # The good answer has lost too much, the bad one gained too much: the full penalty stands.
    new, old = torch.tensor([[0.2, 0.8]]), torch.tensor([[0.5, 0.5]])
    found = clip_surrogate(new.log(), old.log(), torch.tensor([[1.0, -1.0]]), 0.2)
    close(found.objective, [-0.6])
    close(found.share, [0.0])


def test_a_value_of_no_probability_makes_no_infinite_ratio() -> None:
    old = torch.tensor([[0.0, -200.0]], requires_grad=True)
    new = torch.tensor([[-0.7, -0.7]], requires_grad=True)
    found = clip_surrogate(new, old, torch.tensor([[0.0, 1.0]]), 0.2)
    found.objective.sum().backward()  # type: ignore[no-untyped-call]
    assert found.objective.isfinite().all()
    assert new.grad is not None
    assert new.grad.isfinite().all()
    assert old.grad is None


def test_divergence_against_a_hand_computed_value() -> None:
    # 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75), and 0 against itself
    p = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    reference = torch.tensor([[0.25, 0.75], [0.25, 0.75]]).log()
    close(diverge(p, reference), [0.143841, 0.0])


def test_what_a_policy_is_worth() -> None:
    close(judge_policy(P.log(), REWARDS, KNOWN, "cost"), [0.38])
    # (1 - 0.5)^2 + (0 - 0.3)^2 = 0.34; the unknown value's 0.2 does not count
    close(judge_policy(P.log(), REWARDS, KNOWN, "brier"), [-0.17])


@pytest.mark.parametrize("form", FORMS)
def test_at_the_old_policy_the_gradient_is_that_of_the_objective(form: RewardForm) -> None:
    logits = torch.tensor([[0.4, -1.0, 0.3], [2.0, 0.1, 0.0]])
    rewards = torch.tensor([[1.0, -0.4, 0.0], [-1.0, 0.0, 0.0]])
    known = torch.tensor([[True, True, False], [True, False, False]])
    gradients = []
    for is_surrogate in (True, False):
        given = logits.clone().requires_grad_()
        log_p = log_softmax(given, -1)
        value = judge_policy(log_p, rewards, known, form)
        if is_surrogate:
            p = log_p.detach().exp()
            advantages = center(p, shape_rewards(p, rewards, known, form))
            value = clip_surrogate(log_p, log_p.detach(), advantages, 0.2).objective
        value.sum().backward()  # type: ignore[no-untyped-call]
        assert given.grad is not None
        gradients.append(given.grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=0)


def climb(
    rewards: Tensor, known: Tensor, form: RewardForm, *, kl_coef: float = 0.0, rounds: int = 400, rate: float = 0.5
) -> Tensor:
    """The policy that PPO ends at, from an even start: 4 steps a round."""
    logits = torch.zeros_like(rewards, requires_grad=True)
    reference = log_softmax(logits, -1).detach()
    for _ in range(rounds):
        old = log_softmax(logits, -1).detach()
        advantages = center(old.exp(), shape_rewards(old.exp(), rewards, known, form))
        for _ in range(4):
            log_p = log_softmax(logits, -1)
            gain = clip_surrogate(log_p, old, advantages, 0.2).objective - kl_coef * diverge(log_p, reference)
            (gradient,) = torch.autograd.grad(gain.sum(), logits)
            with torch.no_grad():
                logits += rate * gradient
    return log_softmax(logits, -1).exp().detach()


def test_a_bandit_ends_at_its_best_arm() -> None:
    rewards = torch.tensor([[0.2, 1.0, -0.5, 0.8]])
    found = climb(rewards, torch.ones_like(rewards, dtype=torch.bool), "cost")
    assert found[0, 1] > 0.95


def test_with_kl_a_bandit_ends_at_the_gibbs_policy() -> None:
    # max sum pi r - beta KL(pi || even) is reached at pi(a) ~ exp(r(a) / beta).
    rewards = torch.tensor([[0.2, 1.0, -0.5]])
    found = climb(rewards, torch.ones_like(rewards, dtype=torch.bool), "cost", kl_coef=0.5)
    torch.testing.assert_close(found, (rewards / 0.5).softmax(-1), atol=1e-3, rtol=0)


def test_the_calibrated_reward_ends_at_the_shares_of_the_voices() -> None:
    shares = torch.tensor([[0.7, 0.2, 0.1]])
    found = climb(shares, torch.ones_like(shares, dtype=torch.bool), "brier", rounds=800)
    torch.testing.assert_close(found, shares, atol=1e-3, rtol=0)
    # The plain reward has no such rest: it makes the policy sure of what most voices said.
    assert climb(shares, torch.ones_like(shares, dtype=torch.bool), "cost", rounds=800)[0, 0] > 0.95


@pytest.mark.parametrize("form", FORMS)
def test_a_verdict_of_wrong_alone_moves_the_share_to_all_others(form: RewardForm) -> None:
    rewards, known = torch.tensor([[-1.0, 0.0, 0.0]]), torch.tensor([[True, False, False]])
    found = climb(rewards, known, form)
    assert found[0, 0] < 0.05
    torch.testing.assert_close(found[0, 1], found[0, 2], atol=1e-6, rtol=0)
