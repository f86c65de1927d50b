from __future__ import annotations

from typing import Any

import pytest

from feedback.models import CaseDecision
from tests.cast import setup_case, setup_cast
from tests.feedback.api.client import Answer, Program

TEXT = "a text that only its holder may read"


@pytest.fixture
def mo(db: None) -> Program:
    return Program(setup_cast().mo)


def decide(mo: Program, case: dict[str, Any], seen: dict[str, Any], **fields: Any) -> Answer:
    given = {"token": case["claim_token"], "version": seen["version"], "text_hash": seen["text_hash"]}
    return mo.post(f"cases/{case['id']}/decide", given | {"outcome": "confirmed"} | fields)


def test_list_and_claim_hold_no_text(mo: Program) -> None:
    setup_case(text=TEXT)
    listed, claimed = mo.get("cases"), mo.post("cases/claim")
    assert listed.body["results"][0]["band"] == "high"
    assert TEXT not in str(listed.body)
    assert TEXT not in str(claimed.body)


def test_claims_reveals_and_decides(mo: Program) -> None:
    setup_case(text=TEXT)
    case = mo.post("cases/claim").body
    seen = mo.post(f"cases/{case['id']}/reveal", {"token": case["claim_token"]}).body
    assert seen["text"] == TEXT
    answer = decide(mo, case, seen, outcome="not_at_risk", risk="none", note="a song")
    assert (answer.status, answer.body["outcome"]) == (201, "not_at_risk")
    assert mo.post("cases/claim").status == 204
    assert mo.get("cases", open="1").body["results"] == []


def test_stale_decision_is_a_conflict_and_writes_nothing(mo: Program) -> None:
    setup_case()
    case = mo.post("cases/claim").body
    seen = mo.post(f"cases/{case['id']}/reveal", {"token": case["claim_token"]}).body
    answer = decide(mo, case, seen | {"version": 7})
    assert (answer.status, answer.body["error"]) == (409, "stale_claim")
    assert not CaseDecision.objects.exists()


def test_reveal_without_the_claim_is_a_conflict(mo: Program) -> None:
    case = setup_case()
    answer = mo.post(f"cases/{case.pk}/reveal", {"token": "00000000-0000-0000-0000-000000000000"})
    assert (answer.status, answer.body["error"]) == (409, "stale_claim")


def test_handed_back_case_is_free(mo: Program) -> None:
    setup_case()
    case = mo.post("cases/claim").body
    assert mo.post(f"cases/{case['id']}/hand-back", {"token": case["claim_token"]}).status == 204
    assert mo.get("cases").body["results"][0]["claimed_by"] is None


@pytest.mark.parametrize("verb", ["reveal", "decide", "hand-back"])
def test_unknown_case_is_not_found(mo: Program, verb: str) -> None:
    assert mo.post(f"cases/0/{verb}", {}).status == 404


@pytest.mark.parametrize("body", [{}, {"token": "five"}, [], None])
def test_rejects_a_body_without_a_token(mo: Program, body: Any) -> None:
    answer = mo.post(f"cases/{setup_case().pk}/reveal", body)
    assert (answer.status, answer.body["error"]) == (400, "invalid_input")


def test_queries_do_not_grow_with_cases(
    mo: Program, django_assert_num_queries: Any, django_assert_max_num_queries: Any
) -> None:
    setup_case()
    with django_assert_max_num_queries(10) as few:
        mo.get("cases")
    for _ in range(10):
        setup_case()
    with django_assert_num_queries(len(few)):
        assert len(mo.get("cases").body["results"]) == 11
