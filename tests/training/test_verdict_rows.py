"""Each cell of the table from feedback to kto rows, pairs and rewards."""

import random
from typing import Any

import pytest

from tests.training.feedback_records import HIGH, A, B, correction, preferred, record
from training.corpus.preferences import (
    KTO_FILE,
    PAIRS_FILE,
    REWARDS_FILE,
    KtoRow,
    PairRow,
    RewardRow,
    read_preferences,
    write_preferences,
)

WRONG: dict[str, Any] = {"verdict": "incorrect", "labels": {}}


def lines(rows: list[KtoRow]) -> Any:
    """Wanted ones first."""
    return sorted(((row.labels, row.is_desirable, row.weight) for row in rows), key=lambda item: not item[1])


class TestCorrect:
    def test_kto_wants_the_line(self) -> None:
        assert lines(preferred(record()).kto) == [(A, True, 1.0)]

    def test_makes_no_pair(self) -> None:
        assert preferred(record()).pairs == []

    def test_reward_of_each_label_is_one(self) -> None:
        [row] = preferred(record()).rewards
        assert row.rewards == {name: {value: 1.0} for name, value in A.items()}


class TestCorrected:
    def test_kto_wants_the_correction_and_not_the_prediction(self) -> None:
        assert lines(preferred(correction()).kto) == [(B, True, 1.0), (A, False, 1.0)]

    def test_pair_prefers_the_correction_by_the_summed_costs(self) -> None:
        [pair] = preferred(correction()).pairs
        assert (pair.chosen, pair.rejected, pair.weight) == (B, A, 1.0)
        assert pair.margin == 1.0 + 0.5 + 0.5 + 0.5  # sadness/neutral, negative/neutral, medium/low, low/none

    def test_reward_is_one_and_minus_the_cost_by_the_dimensions_worst(self) -> None:
        [row] = preferred(correction()).rewards
        assert row.rewards == {
            "emotion": {"neutral": -0.1, "sadness": 1.0},  # 1 of 10
            "sentiment": {"neutral": -0.5, "negative": 1.0},  # 0.5 of 1
            "stress": {"low": -0.5, "medium": 1.0},
            "risk": {"none": -0.05, "low": 1.0},  # 0.5 of 10
        }

    def test_worst_mistake_is_minus_one(self) -> None:
        [row] = preferred(correction(labels=HIGH)).rewards
        assert row.rewards["risk"] == {"none": -1.0, "high": 1.0}

    def test_partial_correction_takes_the_judged_labels_into_its_line(self) -> None:
        found = preferred(correction(labels={"risk": "low"}))
        better = {**A, "risk": "low"}
        assert lines(found.kto) == [(better, True, 1.0), (A, False, 1.0)]
        assert [(pair.chosen, pair.rejected, pair.margin) for pair in found.pairs] == [(better, A, 0.5)]

    def test_partial_correction_leaves_other_rewards_unknown(self) -> None:
        [row] = preferred(correction(labels={"risk": "low"})).rewards
        assert row.rewards == {"risk": {"none": -0.05, "low": 1.0}}

    def test_partly_judged_prediction_makes_no_pair_but_rewards(self) -> None:
        found = preferred(correction(judged_labels={"risk": "none"}, labels={"risk": "low"}))
        assert (found.kto, found.pairs, found.left_out) == ([], [], {"not_whole": 1})
        assert found.rewards[0].rewards == {"risk": {"none": -0.05, "low": 1.0}}

    def test_whole_correction_of_a_partly_judged_prediction_is_wanted(self) -> None:
        found = preferred(correction(judged_labels={"risk": "none"}))
        assert (lines(found.kto), found.pairs) == ([(B, True, 1.0)], [])


class TestIncorrect:
    def test_kto_does_not_want_the_line(self) -> None:
        found = preferred(record(**WRONG))
        assert (lines(found.kto), found.pairs) == ([(A, False, 1.0)], [])

    def test_reward_of_the_only_judged_label_is_minus_one(self) -> None:
        [row] = preferred(record(**WRONG, judged_labels={"risk": "none"})).rewards
        assert row.rewards == {"risk": {"none": -1.0}}

    def test_blame_is_shared_where_nobody_can_tell_the_dimension(self) -> None:
        [row] = preferred(record(**WRONG)).rewards
        assert row.rewards == {name: {value: -0.25} for name, value in A.items()}

    def test_blame_falls_on_what_others_did_not_confirm(self) -> None:
        known = {name: A[name] for name in ("emotion", "sentiment", "stress")}
        [row] = preferred(record(**WRONG), record(annotator="p2", labels=known)).rewards
        assert row.rewards["risk"] == {"none": -1.0}
        assert row.rewards["emotion"] == {"neutral": 1.0}

    def test_others_correction_explains_it(self) -> None:
        [row] = preferred(record(**WRONG), correction(annotator="p2", labels={"risk": "low"})).rewards
        assert row.rewards == {"risk": {"none": -0.05, "low": 1.0}}

    def test_contradicted_as_a_whole_it_weighs_in_kto_alone(self) -> None:
        found = preferred(record(**WRONG), record(annotator="p2"), record(annotator="p3"))
        assert lines(found.kto) == [(A, True, pytest.approx(2 / 3, abs=1e-6))]
        assert found.rewards[0].rewards["risk"] == {"none": 1.0}


@pytest.mark.parametrize("verdict", ["unsure", "skip"])
def test_no_answer_makes_nothing(verdict: str) -> None:
    found = preferred(record(verdict=verdict))
    assert (found.kto, found.pairs, found.rewards) == ([], [], [])


class TestDisagreement:
    votes = (correction(), correction(annotator="p2"), record(annotator="p3"))

    def test_kto_weighs_by_agreement(self) -> None:
        assert lines(preferred(*self.votes).kto) == [(B, True, 1.0), (A, False, pytest.approx(2 / 3, abs=1e-6))]

    def test_pair_is_smoothed_by_the_voices_against_it(self) -> None:
        [pair] = preferred(*self.votes).pairs
        assert pair.chosen == B
        assert pair.weight == pytest.approx(2 / 3, abs=1e-6)

    def test_pair_turns_round_where_more_voices_stand_by_the_prediction(self) -> None:
        [pair] = preferred(correction(), record(annotator="p2"), record(annotator="p3")).pairs
        assert (pair.chosen, pair.rejected) == (A, B)

    def test_reward_is_the_share_of_the_voices(self) -> None:
        [row] = preferred(*self.votes).rewards
        assert row.rewards["risk"] == {
            "none": pytest.approx(1 / 3, abs=1e-6),
            "low": pytest.approx(2 / 3, abs=1e-6),
        }

    def test_a_label_that_nobody_holds_costs_what_people_believe(self) -> None:
        [row] = preferred(correction(labels=HIGH), correction(annotator="p2")).rewards
        assert row.rewards["risk"] == {"none": -0.525, "low": 0.5, "high": 0.5}  # (10 + 0.5) / 2 of 10

    def test_even_voices_prefer_nothing(self) -> None:
        found = preferred(correction(), record(annotator="p2"))
        assert (found.pairs, lines(found.kto), found.left_out) == ([], [(B, True, 1.0)], {"tie": 2})


class TestModerator:
    votes = (
        record(judged_labels=HIGH),
        record(judged_labels=HIGH, annotator="p2"),
        correction(judged_labels=HIGH, labels={"risk": "none"}, annotator="m1", origin="moderation"),
    )
    settled = {**HIGH, "risk": "none"}

    def test_overrules_votes_in_every_row(self) -> None:
        found = preferred(*self.votes)
        assert lines(found.kto) == [(self.settled, True, 1.0), (HIGH, False, 1.0)]
        assert [(pair.chosen, pair.rejected, pair.weight) for pair in found.pairs] == [(self.settled, HIGH, 1.0)]
        assert found.rewards[0].rewards["risk"] == {"none": 1.0, "high": -0.6}
        assert found.rewards[0].rewards["emotion"] == {"self_harm_high": 1.0}

    def test_word_on_one_label_vouches_for_no_line(self) -> None:
        found = preferred(record(judged_labels=B, labels={"risk": "low"}, annotator="m1", origin="moderation"))
        assert (found.kto, found.left_out) == ([], {"not_whole": 1})


def test_rows_survive_a_file_and_do_not_depend_on_the_order(tmp_path: Any) -> None:
    records = [correction(f"text {text}", annotator=f"p{person}") for text in range(4) for person in range(3)]
    records += [record(f"text {text}", annotator="p4", **WRONG) for text in range(4)]
    found = preferred(*records)
    random.Random(2).shuffle(records)
    assert preferred(*records) == found
    for name, form, rows in (
        (KTO_FILE, KtoRow, found.kto),
        (PAIRS_FILE, PairRow, found.pairs),
        (REWARDS_FILE, RewardRow, found.rewards),
    ):
        write_preferences(tmp_path / name, rows)
        assert read_preferences(tmp_path / name, form) == rows  # type: ignore[type-var]
