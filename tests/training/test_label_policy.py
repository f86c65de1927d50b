"""The arms as policies over labels, and the rounds in which label_ppo learns."""

from pathlib import Path

import pytest
import torch

from classifier.bundle import PROMPT_PATH
from classifier.llm import LlmArm
from classifier.schema import load_schema
from tests.classifier.toys import TOY_BERT, TOY_LLAMA, make_llm_part
from tests.training.ppo_toys import make_ppo_run, make_verdicts
from tests.training.toyruns import GLAD, make_rows
from training.corpus.preferences import RewardRow
from training.corpus.rows import Row
from training.jobs import label_ppo
from training.jobs.checkpoints import trainable
from training.jobs.config import LabelPpoOptions
from training.jobs.label_policy import LlmPolicy, Policy, build_policy
from training.jobs.rounds import PolicyData, RoundSampler, Shape, split_held_out, weave
from training.jobs.runtime import Job
from training.jobs.start import Start


@pytest.fixture(scope="module")
def llm_start(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llm_part(tmp_path_factory.mktemp("start") / "llm", toys / "base_models" / TOY_LLAMA)


def load_policy(bases: Path, arm: str, start: Path | None = None) -> Policy:
    torch.manual_seed(1)
    base = bases / (TOY_BERT if arm == "bert" else TOY_LLAMA)
    return build_policy(Start(base, start), LabelPpoOptions(arm=arm, max_tokens=64, lora_rank=2), None)


def make_data(policy: Policy, verdicts: int, replayed: int) -> PolicyData:
    return PolicyData.build(policy, load_schema(), make_verdicts(verdicts), make_rows(replayed), [])


def test_where_no_step_did_better_the_start_is_kept(bases: Path, tmp_path: Path) -> None:
    job = Job(make_ppo_run(tmp_path / "run", bases, make_verdicts(8)))
    policy = load_policy(bases, "bert")
    trainer = label_ppo.build_trainer(job, LabelPpoOptions(), policy, make_data(policy, 8, 8), 1, -0.2)
    start = label_ppo.copy_weights(policy.model)
    with torch.no_grad():
        policy.model.heads["risk"].bias += 1.0
    trainer.state.best_metric = -0.2
    label_ppo.keep_best(job, trainer, start, -0.2)
    assert torch.equal(policy.model.heads["risk"].bias, start["heads.risk.bias"])


def test_a_tenth_of_the_texts_is_held_out_and_stays_so() -> None:
    rows = [RewardRow(f"r{index}", f"text {index}", {"risk": {"low": 1.0}}) for index in range(1000)]
    train, held_out = split_held_out(rows)
    assert 70 < len(held_out) < 130
    assert split_held_out(rows[::-1])[1] == held_out[::-1]
    assert len(train) + len(held_out) == 1000


def test_a_round_asks_the_same_verdicts_in_every_step(bases: Path) -> None:
    data = make_data(load_policy(bases, "bert"), 10, 20)
    shape = Shape.fit(data, batch_size=4, steps=3, parts=3)
    assert (shape.verdicts, shape.replayed) == (4, 2)
    assert Shape.fit(data, batch_size=4, steps=3, parts=4).rows == 8  # filled up, so that the parts are equal
    sampler = RoundSampler(data, shape, 4, seed=1)
    order = list(sampler)
    assert len(order) == len(sampler) == 3 * 3 * 6
    steps = [order[at : at + 6] for at in range(0, len(order), 6)]
    for first in range(0, 9, 3):
        places = [[index if index < 10 else -1 for index in step] for step in steps[first : first + 3]]
        assert places[0] == places[1] == places[2]
    assert {index for index in order if index < 10} == set(range(10))
    assert len({index for index in order if index >= 10}) > 6  # new ones each step
    assert list(sampler) == order
    sampler.set_epoch(1)
    assert list(sampler) != order


def test_every_part_of_a_step_has_its_share_of_either_kind() -> None:
    assert weave([1, 2, 3, 4], [-1, -2]) == [1, -1, 2, 3, -2, 4]


def test_the_gradient_does_not_depend_on_how_a_step_is_cut(bases: Path, tmp_path: Path) -> None:
    run_dir = make_ppo_run(tmp_path / "run", bases, make_verdicts(8))
    gradients = []
    for parts in (1, 4):
        policy = load_policy(bases, "bert")
        options = LabelPpoOptions(batch_size=8, ppo_epochs=2)
        trainer = label_ppo.build_trainer(Job(run_dir), options, policy, make_data(policy, 8, 8), parts, None)
        batches = list(trainer.get_train_dataloader())[:parts]
        for batch in batches:
            (trainer.compute_loss(policy.model, batch) / parts).backward()
        gradients.append({name: weight.grad for name, weight in trainable(policy.model).items()})
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0].values() if gradient is not None)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name, rtol=1e-3, atol=1e-6)


def test_the_old_policy_is_that_of_the_rounds_first_step(bases: Path, tmp_path: Path) -> None:
    run_dir = make_ppo_run(tmp_path / "run", bases, make_verdicts(8))
    policy = load_policy(bases, "bert")
    data = make_data(policy, 8, 8)
    options = LabelPpoOptions(batch_size=8, ppo_epochs=2)
    trainer = label_ppo.build_trainer(Job(run_dir), options, policy, data, 1, None)
    (batch, *_) = trainer.get_train_dataloader()
    seen = []
    for step in range(3):
        trainer.state.global_step = step
        trainer.compute_loss(policy.model, dict(batch))
        seen.append(data.slots["risk"].old[batch["index"]].clone())
        with torch.no_grad():
            policy.model.heads["risk"].bias += torch.tensor([1.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(seen[0], data.slots["risk"].reference[batch["index"]], atol=1e-5, rtol=0)
    assert torch.equal(seen[1], seen[0])
    assert (seen[2][:, 0] > seen[0][:, 0]).all()


def test_the_llm_as_a_policy_says_what_it_serves(bases: Path, llm_start: Path) -> None:
    policy = load_policy(bases, "llm", llm_start)
    texts = ["hi", "a longer text than that one", "y 2 y 2"]
    items = policy.encode(texts)
    arm = LlmArm.load(llm_start, bases / TOY_LLAMA, load_schema(), PROMPT_PATH.read_text(encoding="utf-8"))
    served = arm.score(texts)
    with torch.no_grad():
        found = policy.score(policy.model, policy.collate(items))
    for dimension in load_schema().dimensions:
        wanted = [[row.probabilities[dimension.name][name] for name in dimension.names] for row in served]
        torch.testing.assert_close(found[dimension.name].exp(), torch.tensor(wanted), atol=1e-4, rtol=0)


def test_one_pass_over_prefix_and_line_gives_the_same_gradient(bases: Path, llm_start: Path) -> None:
    gradients = []
    for is_shared in (True, False):
        policy = load_policy(bases, "llm", llm_start)
        assert isinstance(policy, LlmPolicy)
        inputs = policy.collate(policy.encode(["hi", "a longer text"]))
        policy.reads_prefix_once = is_shared
        log_p = policy.score(policy.model, inputs)
        torch.stack([row[:, 0].sum() for row in log_p.values()]).sum().backward()  # type: ignore[no-untyped-call]
        gradients.append({name: weight.grad for name, weight in trainable(policy.model).items()})
    assert gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name, rtol=1e-3, atol=1e-4)


def test_a_long_row_is_not_replayed_beside_short_verdicts(bases: Path) -> None:
    rows = [Row("long", "z" * 60, GLAD, "s"), *make_rows(6)]
    policy = load_policy(bases, "bert")
    data = PolicyData.build(policy, load_schema(), make_verdicts(8), rows, [])
    order = list(RoundSampler(data, Shape.fit(data, batch_size=4, steps=4, parts=1), 4, seed=1))
    assert any(index > 8 for index in order)
    assert 8 not in order
    # Where nothing else is there, it is learned again all the same.
    data = PolicyData.build(policy, load_schema(), make_verdicts(8), rows[:1], [])
    assert 8 in list(RoundSampler(data, Shape.fit(data, batch_size=4, steps=4, parts=1), 4, seed=1))
