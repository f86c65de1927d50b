"""Whether a release may run its LLM part in int8, and what it says about that."""

import json
from pathlib import Path
from typing import Any

import pytest

from classifier.base_models import weights_sha256
from classifier.bundle import BundleParts
from classifier.hybrid import Calibration
from classifier.llm import LlmArm
from classifier.llm_load import LlmSettings
from classifier.schema import load_schema
from classifier.types import ArmScores
from tests.classifier.completions_stub import KEY, MODEL, CompletionsStub
from tests.classifier.toys import TOY_LLAMA, make_base_models, make_llm_part, make_prompt
from tests.training.toyruns import make_run_dir
from training.jobs import int8_gate
from training.jobs.candidate import CalibrationPlan, Sets, calibrate_parts
from training.jobs.int8_gate import choose_int8
from training.jobs.runtime import Job

SCHEMA = load_schema()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base_models(tmp_path_factory.mktemp("bases"))


@pytest.fixture
def job(bases: Path, tmp_path: Path) -> Job:
    return Job(make_run_dir(tmp_path / "run", bases, "sft", rows=4))


@pytest.fixture
def parts(bases: Path, tmp_path: Path) -> BundleParts:
    base = bases / TOY_LLAMA
    return BundleParts(
        name="toy",
        policy="weighted",
        calibration=Calibration.identity(SCHEMA),
        llm=make_llm_part(tmp_path / "llm", base, seed=1),
        llm_base=(TOY_LLAMA, weights_sha256(base, trust_manifest=True)),
        prompt=make_prompt(tmp_path / "prompt.txt"),
    )


def read_llm(parts: BundleParts) -> dict[str, Any]:
    assert parts.llm is not None
    settings: dict[str, Any] = json.loads((parts.llm / "llm.json").read_text())
    return settings


def spoil_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """An int8 arm that always misses risk; the full one is always right."""

    def score(self: LlmArm, texts: list[str], drafts: Any = None) -> list[ArmScores]:
        is_small = type(self.model.model.layers[0].mlp.down_proj).__name__ == "Int8Linear"
        risk = "none" if is_small else "high"
        rows = {item.name: {name: float(name == item.names[0]) for name in item.names} for item in SCHEMA.dimensions}
        rows["risk"] = {name: float(name == risk) for name in SCHEMA["risk"].names}
        return [ArmScores("llm", rows, 1.0) for _ in texts]

    monkeypatch.setattr(LlmArm, "score", score)


def test_writes_the_answer_and_the_figures_into_a_copy(job: Job, parts: BundleParts) -> None:
    chosen = choose_int8(job, parts, Sets.read(job))
    assert chosen.llm == job.run_dir / "llm"
    assert "int8" not in read_llm(parts)
    found = read_llm(chosen)
    assert isinstance(found["int8"], bool)
    assert found["int8_measured"]["labels"]["risk"]["rows"] == 8
    assert set(found["int8_measured"]["agreement"]) == set(SCHEMA.names)
    assert LlmSettings.read(job.run_dir / "llm").int8 == found["int8"]


def test_a_part_that_misses_more_risk_in_int8_stays_in_float32(
    job: Job, parts: BundleParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = Sets.read(job)
    risky = [type(row)(row.id, row.text, {"risk": "high"}, row.source) for row in sets.test]
    spoil_int8(monkeypatch)
    chosen = choose_int8(job, parts, Sets(risky, risky, []))
    found = read_llm(chosen)
    assert found["int8"] is False
    assert found["int8_measured"]["missed_risk"] == {"lost": 8, "won": 0, "rows": 8, "loss_points": 100.0}


def test_a_part_that_loses_nothing_runs_in_int8(job: Job, parts: BundleParts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlmArm, "use_int8", lambda self: None)
    found = read_llm(choose_int8(job, parts, Sets.read(job)))
    assert found["int8"] is True
    assert set(found["int8_measured"]["agreement"].values()) == {1.0}


def test_reads_no_more_rows_than_asked(job: Job, parts: BundleParts) -> None:
    found = read_llm(choose_int8(job, parts, Sets.read(job), rows=3))
    assert found["int8_measured"]["labels"]["risk"]["rows"] == 3


@pytest.mark.parametrize("given", [{"int8": False}, {"remote": {"url": "https://example.org/v1"}}])
def test_a_part_that_has_its_answer_is_not_measured_again(given: dict[str, Any], job: Job, parts: BundleParts) -> None:
    assert parts.llm is not None
    (parts.llm / "llm.json").write_text(json.dumps(given))
    assert choose_int8(job, parts, Sets.read(job)) is parts


def test_nothing_is_measured_where_the_setting_rules_int8_out(
    job: Job, parts: BundleParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEED_LLM_INT8", "0")
    monkeypatch.setattr(int8_gate, "_judge", lambda *_: pytest.fail("it was measured"))
    assert choose_int8(job, parts, Sets.read(job)) is parts


def test_an_attempt_after_a_stopped_one_starts_from_the_part(job: Job, parts: BundleParts) -> None:
    (job.run_dir / "llm").mkdir()
    (job.run_dir / "llm" / "left.json").write_text("{}")
    chosen = choose_int8(job, parts, Sets.read(job))
    assert chosen.llm is not None
    assert parts.llm is not None
    assert {path.name for path in chosen.llm.iterdir()} == {path.name for path in parts.llm.iterdir()}


def test_a_part_on_a_server_is_calibrated_there(
    job: Job, parts: BundleParts, bases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parts.llm is not None
    local = LlmArm.load(parts.llm, bases / TOY_LLAMA, SCHEMA, parts.prompt.read_text(encoding="utf-8"))
    rows = job.rows("val") * 6
    plan = CalibrationPlan()
    expected = calibrate_parts(job, parts, rows, plan)
    with CompletionsStub(local.model, local.prompt.tokenizer).running() as server:
        monkeypatch.setenv("HEED_LLM_REMOTE_URL", server.url)
        monkeypatch.setenv("HEED_LLM_REMOTE_MODEL", MODEL)
        monkeypatch.setenv("HEED_LLM_REMOTE_KEY", KEY)
        found = calibrate_parts(job, parts, rows, plan)
        assert server.requests
    assert found.temperature["llm"] == pytest.approx(dict(expected.temperature["llm"]), rel=0.02)
    assert expected.temperature["llm"] != Calibration.identity(SCHEMA).temperature["llm"]
