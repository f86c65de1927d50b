"""Skill by Dawid-Skene, and the cap on anybody's influence."""

import random
from typing import Any

import pytest

from classifier.schema import load_schema
from tests.training.feedback_records import A, compiled, record
from training.corpus.annotators import (
    EQUAL,
    Panel,
    Skill,
    Vote,
    Word,
    believe,
    cap_influence,
    fit_one_coin,
    fit_panel,
    share_masses,
)

RISK = load_schema()["risk"]


def votes(texts: int, **people: str) -> list[Vote]:
    """Each person's risk values, one letter a text, repeated: n, l, m, h."""
    names = {name[0]: name for name in RISK.names}
    return [
        Vote(f"t{text:03d}", person, "risk", names[letters[text % len(letters)]])
        for text in range(texts)
        for person, letters in people.items()
    ]


class TestSkill:
    def test_of_people_who_agree_is_one(self) -> None:
        assert fit_one_coin(votes(30, p1="n", p2="n")) == {"p1": 1.0, "p2": 1.0}

    def test_of_one_against_two_is_their_agreement_with_the_two(self) -> None:
        """p3 differs from both others on one text of four: the truth is what the two say, so s = 3/4."""
        found = fit_one_coin(votes(40, p1="nlmh", p2="nlmh", p3="nlmn"))
        assert found == {"p1": pytest.approx(1), "p2": pytest.approx(1), "p3": pytest.approx(0.75)}

    def test_is_what_crowd_kit_finds(self) -> None:
        pandas = pytest.importorskip("pandas")
        crowd = pytest.importorskip("crowdkit.aggregation.classification.dawid_skene")
        draw = random.Random(4)
        given = []
        for text in range(40):
            true = draw.choice(RISK.names)
            for person, skill in (("p1", 0.9), ("p2", 0.7), ("p3", 0.5), ("p4", 0.3)):
                value = true if draw.random() < skill else draw.choice(RISK.names)
                given.append(Vote(f"t{text:02d}", person, "risk", value))
        rows = [(vote.task, vote.worker, vote.value) for vote in given]
        model = crowd.OneCoinDawidSkene(n_iter=80, tol=float("-inf"))  # every round: its own limit stops too early
        expected = model.fit(pandas.DataFrame(rows, columns=["task", "worker", "label"])).skills_
        assert fit_one_coin(given) == {name: pytest.approx(expected[name], abs=1e-3) for name in expected.index}

    def test_is_shrunk_to_the_teams_mean(self) -> None:
        """Mean (40 + 40 + 30) / 120 = 11/12; p3: (30 + 10 * 11/12) / 50 = 0.7833, (s - 1/4) / (3/4) = 0.7111.
        p1: (40 + 9.1667) / 50 = 0.98333, beyond chance 0.97778; trust of p3 = 0.7111 / 0.97778 = 0.7273."""
        panel = fit_panel(votes(40, p1="nlmh", p2="nlmh", p3="nlmn"))
        assert panel.accuracy("p3", "risk") == pytest.approx(0.78333, abs=1e-4)
        assert panel.trust("p1") == 1.0
        assert panel.trust("p3") == pytest.approx(0.72727, abs=1e-4)

    def test_needs_shared_texts(self) -> None:
        panel = fit_panel(votes(19, p1="n", p2="n", p3="n"))
        assert (panel.skills, panel.trust("p1")) == ({}, 1.0)
        assert "19 texts were answered by several people, 3 people in all" in panel.why

    def test_needs_a_third_person(self) -> None:
        assert fit_panel(votes(60, p1="n", p2="l")).skills == {}

    def test_of_somebody_who_shares_no_text_is_the_mean(self) -> None:
        panel = fit_panel([*votes(40, p1="nlmh", p2="nlmh", p3="nlmn"), Vote("alone", "p9", "risk", "high")])
        assert panel.trust("p9") == pytest.approx((1 + 1 + panel.trust("p3")) / 3)

    def test_does_not_depend_on_the_order(self) -> None:
        given = votes(40, p1="nlmh", p2="nlmn", p3="nlmm", p4="hhhn")
        expected = fit_panel(given)
        random.Random(3).shuffle(given)
        assert fit_panel(given) == expected

    def test_of_flippers_is_worth_nothing(self) -> None:
        """Three of ten who always say the opposite: they are found out, and their lone texts are left out."""
        honest = [record(f"t{text}", annotator=f"p{text % 7}", judged_labels=A) for text in range(70)]
        honest += [record(f"t{text}", annotator=f"p{(text + 1) % 7}", judged_labels=A) for text in range(70)]
        flipped = {"emotion": "self_harm_high", "sentiment": "negative", "stress": "high", "risk": "high"}
        flippers = [
            record(f"t{text}", annotator=f"q{text % 3}", verdict="corrected", labels=flipped) for text in range(70)
        ]
        alone = [record("alone", annotator="q1", verdict="corrected", labels=flipped)]
        found = compiled(*honest, *flippers, *alone)
        assert all(found.panel.trust(f"q{number}") == 0 for number in range(3))
        assert all(row.labels == A for row in found.rows)
        assert found.left_out == {"untrusted": 1}


class TestBelief:
    def test_is_the_posterior_under_a_flat_prior(self) -> None:
        """s = 0.7 and 0.4 of K = 4: high (0.7)(0.6/3) against none (0.3/3)(0.4): 0.14 : 0.04."""
        panel = Panel({"p1": Skill({"risk": 0.7}, 1, 9), "p2": Skill({"risk": 0.4}, 1, 9)}, "", {})
        found = believe(RISK, [Word("high", "p1", "p1", 1), Word("none", "p2", "p2", 1)], panel)
        assert found == {"none": pytest.approx(0.04 / 0.18), "high": pytest.approx(0.14 / 0.18)}

    def test_of_somebody_worse_than_chance_counts_for_nothing(self) -> None:
        panel = Panel({"p1": Skill({"risk": 0.7}, 1, 9), "p2": Skill({"risk": 0.1}, 1, 9)}, "", {})
        found = believe(RISK, [Word("high", "p1", "p1", 1), Word("none", "p2", "p2", 1)], panel)
        assert found["high"] == pytest.approx(0.7 / 0.8)

    def test_without_skills_is_the_share_of_the_weights(self) -> None:
        words = [Word("high", "p1", "p1", 1), Word("none", "p2", "p2", 0.5), Word("none", "p3", "p3", 0.5)]
        assert believe(RISK, words, EQUAL) == {"none": 0.5, "high": 0.5}

    def test_pulls_less_where_the_cap_is_reached(self) -> None:
        """The factor is the power of the likelihood: 0.7^(1/2) (0.2) against (0.1)^(1/2) 0.4."""
        skills = {"p1": Skill({"risk": 0.7}, 1, 9), "p2": Skill({"risk": 0.4}, 1, 9)}
        words = [Word("high", "p1", "p1", 1), Word("none", "p2", "p2", 1)]
        found = believe(RISK, words, Panel(skills, "", {"p1": 0.5}))
        high, none = 0.7**0.5 * 0.2, 0.1**0.5 * 0.4
        assert found["high"] == pytest.approx(high / (high + none))


class TestCap:
    def test_leaves_everybody_below_it_alone(self) -> None:
        assert cap_influence({"p1": 5, "p2": 3, "p3": 1, "p4": 1}, 0.5) == {}

    def test_scales_down_to_the_share(self) -> None:
        """90 beside 10 at a cap of one half: 10 are left."""
        factors = cap_influence({"p1": 90, "p2": 4, "p3": 3, "p4": 3}, 0.5)
        assert factors == {"p1": pytest.approx(1 / 9)}

    def test_holds_after_others_are_scaled_too(self) -> None:
        """Two at 0.3 of T each, so T = 20 / 0.4 = 50 and both keep 15."""
        factors = cap_influence({"p1": 100, "p2": 50} | {f"q{n}": 2 for n in range(10)}, 0.3)
        assert factors == {"p1": pytest.approx(0.15), "p2": pytest.approx(0.3)}

    @pytest.mark.parametrize("masses", [{"p1": 9.0}, {"p1": 900.0, "p2": 1.0}, {}])
    def test_does_not_bind_one_or_two_people(self, masses: dict[str, float]) -> None:
        assert cap_influence(masses, 0.1) == {}

    def test_never_cuts_below_twice_an_even_share(self) -> None:
        """Five people: the limit is 2/5, so 60 of 100 become x with x / (x + 40) = 0.4."""
        factors = cap_influence({"p1": 60, "p2": 10, "p3": 10, "p4": 10, "p5": 10}, 0.1)
        assert factors == {"p1": pytest.approx((80 / 3) / 60)}

    def test_counts_a_row_as_the_mean_of_its_voices(self) -> None:
        assert share_masses([[("p1", 1.0), ("p2", 0.5)], [("p1", 1.0)]]) == {"p1": 1.5, "p2": 0.25}

    def test_reaches_the_rows_and_the_soft_labels(self) -> None:
        alone = [record(f"t{text}") for text in range(97)]
        others = [record(f"o{n}", annotator=f"p{n}") for n in range(2, 5)]
        found = compiled(*alone, *others, feedback_weight=3.0)
        weights = {row.text: row.weight for row in found.rows}
        assert weights["o2"] == 3.0
        assert sum(weights[f"t{text}"] for text in range(97)) == pytest.approx(9.0, abs=1e-3)
        disputed = record("t0", annotator="p2", verdict="corrected", labels={**A, "risk": "high"})
        [row] = [row for row in compiled(*alone, *others, disputed).rows if row.text == "t0"]
        shares: Any = row.labels["risk"]
        # p1's 96.5 texts are cut to what the others have, 3.5: 0.0363 against p2's 1.
        assert shares == {"none": pytest.approx(0.035, abs=1e-4), "high": pytest.approx(0.965, abs=1e-4)}
