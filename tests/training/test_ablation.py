"""One scoring, every configuration: the same answers that the bundle gives, and what the report says of them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from classifier import api
from classifier.bundle import BundleParts, build_bundle
from classifier.hybrid import Abstain, Calibration
from classifier.schema import load_schema
from tests.classifier.toys import make_base_models, make_bundle
from tests.training.toyruns import ANSWERS, GLAD, SAD, answer_rows, make_rows
from training.corpus.rows import Row, write_rows
from training.jobs import ablation
from training.jobs.ablation import Given, decide_by, make_report, read_labelled
from training.jobs.arm_scores import score_texts
from training.jobs.suite import Case
from training.plots import VARIABLES, draw_ablation

RISKY = {"emotion": "self_harm_high", "sentiment": "negative", "stress": "high", "risk": "high"}
WEAK = [
    Row(f"w{n}", f"forum post {n}", {"risk": "low|medium|high" if n % 2 else "none|low"}, "forum") for n in range(8)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("ablation")
    make_base_models(found / "base_models")
    return found


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return make_bundle(folder, name="toy-both", policy="cascade", answers=ANSWERS)


@pytest.fixture(scope="module")
def classifier(bundle: Path, folder: Path) -> api.Classifier:
    return api.load(bundle, base_models=folder / "base_models")


@pytest.fixture(scope="module")
def given() -> Given:
    suite = [
        Case("s1", "F06_plan", "a blockword stands here", RISKY, "risk_min:high"),
        Case("s2", "F01_glad", "the sun is out", GLAD, "all"),
    ]
    return Given([*answer_rows(), *make_rows(20), *WEAK], suite, make_rows(40), times=60)


@pytest.fixture(scope="module")
def report(classifier: api.Classifier, bundle: Path, given: Given) -> dict[str, Any]:
    return make_report(classifier, bundle, given)


def part(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next(dict(item) for item in report["parts"] if item["name"] == name)


class TestConfigurations:
    TEXTS = (*ANSWERS, "a blockword stands here", "an allowword too", "something else", "y 3 y 3")

    @pytest.mark.parametrize(("name", "policy"), [("all_weighted", "weighted"), ("all_cascade", "cascade")])
    def test_the_whole_answers_as_the_bundle_does(self, folder: Path, name: str, policy: Any) -> None:
        made = make_bundle(folder, name=f"toy-{policy}", policy=policy, answers=ANSWERS)
        classifier = api.load(made, base_models=folder / "base_models")
        scored = score_texts(classifier, self.TEXTS)
        for text, item, decision in zip(self.TEXTS, scored, classifier.decide(self.TEXTS), strict=True):
            found = decide_by(name, item, classifier.calibration)
            assert found.labels == decision.labels, text
            for dimension, row in decision.probabilities.items():
                assert found.probabilities is not None
                assert found.probabilities[dimension] == pytest.approx(row, abs=1e-4)

    def test_an_arm_alone_knows_no_rules(self, classifier: api.Classifier) -> None:
        (item,) = score_texts(classifier, ["a blockword stands here"])
        assert item.verdict.risk_floor == "high"
        calibration = Calibration.identity(load_schema())
        for arm in ("bert", "llm"):
            # Its own argmax, whatever the floor says.
            row = item.arms[arm].probabilities["emotion"]
            assert decide_by(arm, item, calibration).labels["emotion"] == max(row, key=row.__getitem__)

    def test_rules_alone_are_quiet_where_nothing_speaks(self, classifier: api.Classifier) -> None:
        quiet, blocked = score_texts(classifier, ["nothing at all", "a blockword stands here"])
        calibration = classifier.calibration
        assert decide_by("rules", quiet, calibration).labels == ablation.QUIET
        assert decide_by("rules", blocked, calibration).labels["risk"] == "high"

    def test_a_bundle_of_one_arm_has_fewer(self, folder: Path) -> None:
        made = make_bundle(folder, name="toy-bert-alone", llm=False)
        classifier = api.load(made, base_models=folder / "base_models")
        report = make_report(classifier, made, Given(make_rows(8), times=20))
        assert [item["name"] for item in report["configurations"]] == ["rules", "bert", "all_weighted"]
        assert report["conflicts"] is None
        assert "no bag of words" in report["remarks"][0]

    def test_an_unreadable_text_has_no_answer(self, classifier: api.Classifier) -> None:
        (item,) = score_texts(classifier, ["\0"])
        assert item.arms == {}
        assert decide_by("all_weighted", item, classifier.calibration).labels == {}


class TestCache:
    def test_a_second_run_asks_no_model(self, classifier: api.Classifier, tmp_path: Path) -> None:
        texts = [row.text for row in make_rows(20)]
        asked: list[str] = []
        first = score_texts(classifier, texts, cache=tmp_path)
        again = score_texts(classifier, texts, cache=tmp_path, report=lambda stage, *_: asked.append(stage))
        assert (again, asked) == (first, [])

    def test_an_interrupted_run_goes_on(self, classifier: api.Classifier, tmp_path: Path) -> None:
        texts = [row.text for row in make_rows(40)]

        def stop(stage: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            score_texts(classifier, texts, cache=tmp_path, report=stop)
        (path,) = tmp_path.iterdir()
        # Half a line, as a kill leaves it.
        path.write_bytes(path.read_bytes() + b'{"text": "12')
        steps: list[int] = []
        score_texts(classifier, texts, cache=tmp_path, report=lambda stage, done, total: steps.append(total))
        assert steps[0] == 40 - 16
        assert score_texts(classifier, texts, cache=tmp_path) == score_texts(classifier, texts, cache=tmp_path)

    def test_holds_no_text(self, classifier: api.Classifier, tmp_path: Path) -> None:
        score_texts(classifier, ["a very private sentence"], cache=tmp_path)
        assert all("private" not in path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


class TestReport:
    def test_is_json_without_texts(self, report: dict[str, Any], given: Given) -> None:
        written = json.dumps(report)
        assert not any(row.text.strip() in written for row in given.rows)

    def test_has_every_configuration_for_every_source(self, report: dict[str, Any]) -> None:
        assert [item["name"] for item in report["parts"]] == ["all", "bank", "forum"]
        assert list(part(report, "bank")["configurations"]) == list(ablation.TITLES)
        assert part(report, "bank")["trained_on"] is True
        assert part(report, "forum")["trained_on"] is False

    def test_solved_answers_are_right(self, classifier: api.Classifier, bundle: Path) -> None:
        report = make_report(classifier, bundle, Given(answer_rows(), times=20))
        whole = part(report, "all")["configurations"]["all_weighted"]
        assert whole["dimensions"]["emotion"]["macro_f1"]["value"] == 1.0
        assert report["hybrid_minus_best"]["emotion"]["holds"]

    def test_a_weak_set_counts_by_ranking_alone(self, report: dict[str, Any]) -> None:
        forum = part(report, "forum")
        assert forum["is_weak"]
        for item in forum["configurations"].values():
            assert item["dimensions"]["risk"]["rows"] == 0
            assert item["false_alarm"]["total"] == 0
        auroc = forum["configurations"]["bert"]["auroc"]
        assert (auroc["positives"], auroc["negatives"]) == (4, 4)
        assert part(report, "all")["configurations"]["bert"]["dimensions"]["risk"]["rows"] == 24

    def test_what_cannot_beat_the_bag_of_words_is_said(self, report: dict[str, Any]) -> None:
        # The rows are told apart by one letter, which the toy models do not know.
        assert report["against_bag_of_words"]["rules"]["emotion"]["verdict"] == "worse"
        assert any(
            "“rules only” does not clearly beat the bag of words in emotion" in line for line in report["remarks"]
        )

    def test_suite_is_measured_for_every_configuration(self, report: dict[str, Any]) -> None:
        found = report["suite"]["configurations"]
        assert found["all_weighted"]["missed_risk"]["hits"] == 0
        assert found["rules"]["functionalities"]["F06_plan"]["share"] == 1.0
        assert found["rules"]["functionalities"]["F01_glad"]["share"] == 0.0

    def test_abstain_is_reported_where_it_is_on(self, bundle: Path, folder: Path) -> None:
        parts = BundleParts.from_bundle(bundle, name="toy-abstain")
        abstain = Abstain(target=0.9, limit=1.0, coverage=0.5)
        build_bundle(folder / "toy-abstain", replace(parts, calibration=replace(parts.calibration, abstain=abstain)))
        classifier = api.load(folder / "toy-abstain", base_models=folder / "base_models")
        report = make_report(classifier, folder / "toy-abstain", Given(make_rows(8), times=20))
        assert report["abstain"]["coverage"] == 0.0
        # The figures are those of the answers that stand behind it.
        assert part(report, "all")["configurations"]["all_cascade"]["unscored"] == 0


class TestPlots:
    def test_a_page_can_show_them_under_its_policy(self, report: dict[str, Any]) -> None:
        plots = draw_ablation(report)
        assert [plot.name for plot in plots] == ["f1", "risk", "selective", "suite"]
        for plot in plots:
            assert "style=" not in plot.svg
            assert "<style" not in plot.svg
            assert f'<title id="plot-{plot.name}-title">' in plot.svg
            assert not any(colour in plot.svg for colour in VARIABLES)

    def test_their_colours_are_those_of_the_pages(self) -> None:
        css = (Path(__file__).resolve().parents[2] / "static/css/variables.css").read_text(encoding="utf-8")
        for colour, variable in VARIABLES.items():
            assert f"{variable}: light-dark({colour}," in css

    def test_ids_are_unique_on_a_page(self, report: dict[str, Any]) -> None:
        import re

        ids = [name for plot in draw_ablation(report) for name in re.findall(r'\bid="([^"]+)"', plot.svg)]
        assert len(ids) == len(set(ids))
        used = {name for plot in draw_ablation(report) for name in re.findall(r'(?:url\(|href=")#([\w-]+)', plot.svg)}
        assert used <= set(ids)
        assert used


def test_command_line_writes_report_text_and_plots(bundle: Path, folder: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", answer_rows())
    public = {"text": "the rain again", "source": "sad", "labels": {}, "mapped": {"emotion": "negative"}}
    (tmp_path / "public.jsonl").write_text(json.dumps(public) + "\n", encoding="utf-8")
    files = [str(tmp_path / "rows.jsonl"), str(tmp_path / "public.jsonl")]
    places = ["--bundle", str(bundle), "--base-models", str(folder / "base_models"), "--out", str(tmp_path / "out")]
    assert ablation.main([*places, "--rows", *files]) == 0
    made = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [(item["name"], item["rows"]) for item in made["parts"]] == [("all", 5), ("bank", 4), ("sad", 1)]
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| rules only |" in text
    for name in ("f1", "selective"):
        assert f"(plots/{name}.svg)" in text
        assert (tmp_path / "out" / "plots" / f"{name}.svg").is_file()


def test_a_public_row_reads_negative_as_stress_or_sadness(tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text(
        json.dumps({"text": "so it goes", "mapped": {"emotion": "negative", "sentiment": "negative"}}) + "\n",
        encoding="utf-8",
    )
    (row,) = read_labelled(path)
    assert row.labels == {"emotion": "stress|sadness", "sentiment": "negative"}
    assert SAD["emotion"] in str(row.labels["emotion"]).split("|")


def test_conflicts_say_who_was_right(classifier: api.Classifier, bundle: Path) -> None:
    report = make_report(classifier, bundle, Given([*answer_rows(), *make_rows(30)], times=20))
    for found in report["conflicts"].values():
        assert found["differ"] == sum(pair["count"] for pair in found["pairs"]) > 0
        for pair in found["pairs"]:
            assert pair["bert"] != pair["llm"]
            assert pair["count"] == sum(
                pair[k] for k in ("bert_right", "llm_right", "both_right", "neither", "unknown")
            )
        # BERT is solved for these four rows, so where it differs there it is the one that is right.
        answers = [row for row in found["named_rows"] if row["id"].startswith("answer-")]
        assert {row["right"] for row in answers} <= {"bert"}
        assert set(found["named_rows"][0]) == {"id", "hash", "source", "bert", "llm", "whole", "truth", "right"}
