from __future__ import annotations

import json
import re
from html import unescape

import pytest
from django.test import Client
from django.utils.html import escape

from tests.ablation_report import make_ablation_report
from tests.cast import Cast, setup_release
from training.models import Release


@pytest.fixture
def release(cast: Cast) -> Release:
    return setup_release(name="r0042", report={"gates": [], "ablation": make_ablation_report()})


def test_page_shows_every_configuration_with_intervals(ada: Client, release: Release) -> None:
    html = unescape(ada.get(f"/releases/{release.pk}/ablation/").content.decode())
    report = release.report["ablation"]
    for item in report["configurations"]:
        assert f">{item['title']}</th>" in html
    f1 = report["parts"][0]["configurations"]["bert"]["dimensions"]["emotion"]["macro_f1"]
    assert f"{f1['value']:.2f} ({f1['low']:.2f}–{f1['high']:.2f})" in html
    # The order is the report's own, which a JSON column does not keep.
    places = [html.index(f">{item['title']}</th>") for item in report["configurations"]]
    assert places == sorted(places)
    for line in report["remarks"]:
        assert line in html
    assert "F06 active ideation" in html
    assert "Where the arms disagree about risk" in html


def test_plots_stand_in_the_page_with_words_for_those_who_do_not_see_them(ada: Client, release: Release) -> None:
    html = ada.get(f"/releases/{release.pk}/ablation/").content.decode()
    assert re.findall(r'<title id="plot-([a-z0-9]+)-title">', html) == ["f1", "risk", "selective", "suite"]
    assert html.count('role="img" aria-labelledby="plot-') == 4
    assert " style=" not in html


def test_sets_never_trained_on_are_marked(ada: Client, release: Release) -> None:
    html = ada.get(f"/releases/{release.pk}/ablation/").content.decode()
    row = re.search(r'<th scope="row" class="wide">forum</th>(.*?)</tr>', html)
    assert row is not None
    assert ">never</td>" in row.group(1)


def test_download_is_the_whole_report(ada: Client, release: Release) -> None:
    response = ada.get(f"/releases/{release.pk}/ablation.json")
    assert response["content-disposition"] == 'attachment; filename="ablation-r0042.json"'
    assert json.loads(response.content) == release.report["ablation"]


def test_release_without_one_says_how_to_make_one(ada: Client, cast: Cast) -> None:
    release = setup_release(name="r0007")
    html = ada.get(f"/releases/{release.pk}/ablation/").content.decode()
    assert "manage.py evaluate r0007 --rows" in html
    assert ada.get(f"/releases/{release.pk}/ablation.json").status_code == 404


def test_a_newer_report_is_drawn_anew(ada: Client, release: Release) -> None:
    first = ada.get(f"/releases/{release.pk}/ablation/").content
    report = release.report["ablation"]
    report["made"] = "2026-11-25T10:00:00+00:00"
    report["configurations"][1]["title"] = "the new arm"
    release.save(update_fields=["report"])
    second = ada.get(f"/releases/{release.pk}/ablation/").content
    assert b"the new arm" not in first
    assert second.count(b"the new arm") > 4


def test_list_leads_there_and_the_api_leaves_it_out(ada: Client, release: Release) -> None:
    assert f'href="/releases/{release.pk}/ablation/"' in ada.get("/releases/").content.decode()
    (listed,) = [item for item in ada.get("/api/v1/releases").json()["results"] if item["name"] == "r0042"]
    assert listed["report"] == {"gates": []}


def test_a_name_is_escaped(ada: Client, release: Release) -> None:
    report = release.report["ablation"]
    report["made"] = "another time"
    report["configurations"][0]["title"] = "<b>rules</b>"
    release.save(update_fields=["report"])
    html = ada.get(f"/releases/{release.pk}/ablation/").content.decode()
    assert "<b>rules</b>" not in html
    assert escape("<b>rules</b>") in html
