"""PPO where a label is the whole episode: pure functions of one dimension of a batch.

A text x is the state, a label a of V the action, and its probability pi(a|x) is known for every a. So no label is drawn
and no value model is learned: expectations are sums over a, and the baseline is the policy's own expected reward.
B rows, V values throughout. `known` marks the (row, value) pairs that a verdict speaks of. An unknown value is worth 0,
the middle between right (1) and wrong (down to -1): where nothing but "not a" is known, a's share goes to all others.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

RewardForm = Literal["cost", "brier"]


def shape_rewards(p: Tensor, rewards: Tensor, known: Tensor, form: RewardForm) -> Tensor:
    """`[B, V]` probabilities, rewards and bool mask to the rewards `[B, V]` that the policy is trained on; no gradient.

    cost:   r(a)                              with r in [-1, 1]: right is 1, a mistake minus its share of the worst cost
    brier:  c(a) - pi(a)                      with c = max(r, 0), the share of voices for a
    and 0 where a is unknown. In expectation over pi the second climbs -1/2 sum_a (c(a) - pi(a))^2, half the Brier
    score, whose best policy answers with the voices' shares; the first is best served by a policy that is sure.
    """
    shaped = rewards if form == "cost" else rewards.clamp(min=0) - p.detach()
    return torch.where(known, shaped, torch.zeros_like(shaped))


def expect(p: Tensor, rewards: Tensor) -> Tensor:
    """`[B]`: sum_a pi(a) r(a), of `[B, V]` probabilities and rewards."""
    return (p * rewards).sum(-1)


def center(p_old: Tensor, rewards: Tensor) -> Tensor:
    """Advantages `[B, V]`: A(a) = r(a) - sum_b pi_old(b) r(b). Their expectation under pi_old is 0 in each row."""
    return rewards - expect(p_old, rewards).unsqueeze(-1)


class Clipped(NamedTuple):
    """`objective` `[B]`, to be made large. `share` `[B]`: of pi_old's mass, what the clip holds back; no gradient."""

    objective: Tensor
    share: Tensor


def clip_surrogate(log_p: Tensor, log_p_old: Tensor, advantages: Tensor, clip_range: float) -> Clipped:
    """The clipped surrogate of PPO, its expectation over labels taken exactly. All arguments `[B, V]`.

    objective = sum_a pi_old(a) min(rho(a) A(a), clip(rho(a), 1 - eps, 1 + eps) A(a)),   rho = pi / pi_old
    written without the quotient, since pi_old(a) may be as good as 0:
              = sum_a min(pi(a) A(a), clip(pi(a), (1 - eps) pi_old(a), (1 + eps) pi_old(a)) A(a))
    At pi = pi_old its gradient is that of sum_a pi(a) r(a). Each dimension of a text has a clip of its own.
    """
    p, p_old = log_p.exp(), log_p_old.detach().exp()
    plain = p * advantages
    clipped = p.clamp(min=(1 - clip_range) * p_old, max=(1 + clip_range) * p_old) * advantages
    held = torch.where(clipped < plain, p_old, torch.zeros_like(p_old))
    return Clipped(torch.minimum(plain, clipped).sum(-1), held.sum(-1).detach())


def diverge(log_p: Tensor, log_p_reference: Tensor) -> Tensor:
    """KL(pi || pi_ref) in nats, `[B]`, of log-probabilities `[B, V]`: sum_a pi(a) (log pi(a) - log pi_ref(a))."""
    return (log_p.exp() * (log_p - log_p_reference)).sum(-1)


def judge_policy(log_p: Tensor, rewards: Tensor, known: Tensor, form: RewardForm) -> Tensor:
    """`[B]`: what a policy is worth on rows it has not learned from; `shape_rewards` gives its gradient.

    cost:   sum_known pi(a) r(a)
    brier:  -1/2 sum_known (c(a) - pi(a))^2,   c = max(r, 0)
    """
    p = log_p.exp()
    if form == "cost":
        return expect(p, torch.where(known, rewards, torch.zeros_like(rewards)))
    miss = torch.where(known, rewards.clamp(min=0) - p, torch.zeros_like(p))
    return -0.5 * miss.square().sum(-1)
