from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from feedback.models import AuditEvent, CaseDecision, RiskCase
from feedback.services.moderation import claim_next
from tests.cast import AT_RISK, Cast, setup_case

TEXT = "covered until asked for"


@pytest.fixture
def case(cast: Cast) -> RiskCase:
    return setup_case(text=TEXT)


@pytest.fixture
def mine(cast: Cast, case: RiskCase) -> RiskCase:
    claimed = claim_next(cast.mo)
    assert claimed is not None
    return claimed


def decision(case: RiskCase, **fields: Any) -> dict[str, Any]:
    proof = {"token": case.claim_token, "version": case.version, "text_hash": case.document.text_hash}
    return proof | {"outcome": "confirmed"} | fields


def test_queue_shows_band_and_clock_but_no_text(mo: Client, case: RiskCase) -> None:
    html = mo.get("/cases/").content.decode()
    assert TEXT not in html
    assert "risk-high" in html
    assert "due in 15 min" in html


def test_queue_fragment_is_the_same_view(mo: Client, case: RiskCase) -> None:
    html = mo.get("/cases/", headers={"HX-Request": "true"}).content.decode()
    assert "<nav" not in html
    assert "due in 15 min" in html


def test_next_case_leads_to_the_claimed_one(mo: Client, cast: Cast, case: RiskCase) -> None:
    setup_case(labels=AT_RISK | {"risk": "medium"})
    assert mo.post("/cases/next/")["Location"] == f"/cases/{case.pk}/"
    case.refresh_from_db()
    assert case.claimed_by == cast.mo


def test_no_free_case_is_said(mo: Client) -> None:
    assert b"No case is free" in mo.post("/cases/next/", follow=True).content


def test_case_page_covers_the_text(mo: Client, mine: RiskCase) -> None:
    html = mo.get(f"/cases/{mine.pk}/").content.decode()
    assert TEXT not in html
    assert 'name="outcome"' not in html


def test_reveal_shows_the_text_and_is_recorded(mo: Client, mine: RiskCase) -> None:
    response = mo.post(f"/cases/{mine.pk}/text/", {"token": mine.claim_token}, headers={"HX-Request": "true"})
    assert TEXT in response.content.decode()
    assert b"<nav" not in response.content
    assert AuditEvent.objects.filter(verb="reveal_case").count() == 1


def test_reveal_without_script_shows_the_whole_page(mo: Client, mine: RiskCase) -> None:
    html = mo.post(f"/cases/{mine.pk}/text/", {"token": mine.claim_token}).content.decode()
    assert TEXT in html
    assert "<nav" in html


def test_nobody_reveals_what_is_not_in_their_hands(mo: Client, case: RiskCase) -> None:
    response = mo.post(f"/cases/{case.pk}/text/", {"token": uuid4()})
    assert response.status_code == 409
    assert TEXT not in response.content.decode()
    assert not AuditEvent.objects.filter(verb="reveal_case").exists()


def test_decision_closes_the_case(mo: Client, mine: RiskCase) -> None:
    response = mo.post(f"/cases/{mine.pk}/decision/", decision(mine, note="told the school"), follow=True)
    assert f"Case {mine.pk}: at risk, escalated." in response.content.decode()
    assert CaseDecision.objects.get().note == "told the school"


def test_not_at_risk_says_the_right_label(mo: Client, mine: RiskCase) -> None:
    mo.post(f"/cases/{mine.pk}/decision/", decision(mine, outcome="not_at_risk:low"))
    assert mine.document.annotations.get().risk == "low"


def test_stale_decision_writes_nothing_and_says_so(mo: Client, mine: RiskCase) -> None:
    response = mo.post(f"/cases/{mine.pk}/decision/", decision(mine, version=mine.version + 1), follow=True)
    assert "Nothing was written." in response.content.decode()
    assert not CaseDecision.objects.exists()


@pytest.mark.parametrize("outcome", ["", "not_at_risk", "not_at_risk:high", "confirmed:low", "closed"])
def test_odd_outcome_is_refused(mo: Client, mine: RiskCase, outcome: str) -> None:
    assert mo.post(f"/cases/{mine.pk}/decision/", decision(mine, outcome=outcome)).status_code == 400
    assert not CaseDecision.objects.exists()


def test_decided_case_keeps_its_text_covered(mo: Client, mine: RiskCase) -> None:
    mo.post(f"/cases/{mine.pk}/decision/", decision(mine))
    html = mo.get(f"/cases/{mine.pk}/").content.decode()
    assert TEXT not in html
    assert "This case is decided" in html


def test_annotators_see_no_cases(ana: Client, case: RiskCase) -> None:
    for path in ("/cases/", f"/cases/{case.pk}/"):
        assert ana.get(path).status_code == 403
