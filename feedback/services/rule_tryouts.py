"""Trying a draft out: what it would make of the newest documents and of a functional suite, compared with what serves.

Rules are applied anew to every text. Where the arms' scores are stored, and are those that the serving arms would give,
the whole decision is made anew from them, before and after. No text goes anywhere but into its own row.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from feedback import ml, tasks
from feedback.errors import DraftConflict, InvalidInput
from feedback.models import Document, Person, RuleChange, RuleDraft, RuleTryout
from feedback.models.labels import SCHEMA
from feedback.services import audit

State = RuleTryout.State
MAX_DOCUMENTS = 20_000
MAX_CASES = 5_000
BATCH = 200
LIMIT_S = 120.0
"""After so long a try-out stops and says how far it came."""


@dataclass(frozen=True, slots=True)
class Suite:
    name: str
    cases: Sequence[dict[str, Any]]


def read_suite(data: bytes, name: str) -> Suite:
    """A functional suite, one case a line. Raises RowError naming line and field, or InvalidInput."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the suite is not UTF-8 at byte {error.start + 1}: save the file as UTF-8") from error
    if "\0" in text:
        raise InvalidInput("the suite holds a NUL character: save the file anew as text")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suite.jsonl"
        path.write_text(text, encoding="utf-8")
        cases = [asdict(case) for case in islice(ml.read_suite(path), MAX_CASES + 1)]
    if len(cases) > MAX_CASES:
        raise InvalidInput(f"the suite has more than {MAX_CASES} rows: send a part of it")
    return Suite(name[:200], cases)


def configured_suite() -> Suite | None:
    """The suite that HEED_SUITE_FILE names. Raises InvalidInput or RowError where it cannot be used."""
    path: Path | None = settings.SUITE_FILE
    if path is None:
        return None
    try:
        return read_suite(path.read_bytes(), path.name)
    except OSError as error:
        raise InvalidInput(f"HEED_SUITE_FILE cannot be read: {error.strerror}. Mend the setting.") from error


@transaction.atomic
def start_tryout(draft_id: int, *, version: int, wanted: int, suite: Suite | None, by: Person) -> RuleTryout:
    """Queue a try-out of the draft as it stands; it takes the place of the one before. Raises DraftConflict."""
    draft = RuleDraft.objects.select_for_update().get(pk=draft_id)
    if draft.version != version:
        raise DraftConflict(f"draft {draft_id} was changed meanwhile: look at it, then try it out")
    if not draft.is_valid:
        raise InvalidInput(f"the draft has {len(draft.problems)} problems: mend them first")
    if any(tryout.is_live for tryout in draft.tryouts.all()):
        raise DraftConflict(f"draft {draft_id} is being tried out already: wait for that")
    draft.tryouts.all().delete()
    tryout = RuleTryout.objects.create(
        draft=draft,
        draft_version=draft.version,
        wanted=min(wanted, MAX_DOCUMENTS),
        suite_name=suite.name if suite else "",
        suite=list(suite.cases) if suite else [],
        created_by=by,
    )
    tasks.try_rules_on_commit(tryout.pk)
    data = {"version": draft.version, "documents": tryout.wanted, "cases": len(tryout.suite)}
    audit.record("try_rule_draft", draft, by=by, data=data)
    return tryout


def run_tryout(tryout_id: int) -> None:
    """For the worker. A second delivery returns at once; a failure is written into the row."""
    claimed = RuleTryout.objects.filter(pk=tryout_id, state=State.QUEUED)
    if not claimed.update(state=State.RUNNING, touched_at=timezone.now()):
        return
    tryout = RuleTryout.objects.select_related("draft__base").get(pk=tryout_id)
    try:
        _Comparison(tryout).run()
    except (ml.RuleError, ml.BundleError, ml.TrainingError, InvalidInput) as error:
        tryout.state, tryout.error = State.FAILED, str(error)
    except Exception:
        RuleTryout.objects.filter(pk=tryout_id).update(state=State.FAILED, error="the worker failed: see its log")
        raise
    else:
        tryout.state = State.DONE
    tryout.save(update_fields=["state", "error"])


class _Comparison:
    """The draft against what serves now, one batch after the other."""

    def __init__(self, tryout: RuleTryout) -> None:
        serving = ml.serving_release()
        if serving is None:
            raise InvalidInput("no release serves any more: nothing to compare with")
        self._tryout = tryout
        self._serving = serving
        self._before = ml.load_rules(serving)
        self._after = ml.RuleSet(ml.read_texts(tryout.draft.files)[0])
        self._blend = ml.read_blend(serving)
        self._have_same_arms: dict[int, bool] = {}
        self._counts = Counter[str]()
        self._started = time.monotonic()

    def run(self) -> None:
        newest = Document.objects.order_by("-pk").values_list("pk", flat=True)[: self._tryout.wanted]
        ids, cases = list(newest), self._tryout.suite
        self._tryout.total = len(ids) + len(cases)
        self._tryout.save(update_fields=["total"])
        for part in _in_batches(cases):
            self._keep([self._compare_case(case) for case in part])
            if self._is_late():
                return
        for part in _in_batches(ids):
            documents = Document.objects.filter(pk__in=part).select_related("prediction__release").order_by("-pk")
            self._keep([self._compare_document(document) for document in documents], done=len(part))
            if self._is_late():
                return

    def _is_late(self) -> bool:
        return time.monotonic() - self._started > LIMIT_S

    def _compare_document(self, document: Document) -> RuleChange | None:
        arms = self._stored_arms(document)
        self._counts["documents"] += 1
        self._counts["decided"] += bool(arms)
        change = ml.compare(document.text, self._before, self._after, arms=arms, blend=self._blend)
        return self._make_row(change, document=document) if change else None

    def _stored_arms(self, document: Document) -> list[ml.ArmScores]:
        """Empty where there are none, or where other arms than the serving ones gave them."""
        prediction = document.prediction
        if prediction is None or not prediction.arms:
            return []
        known = self._have_same_arms
        if prediction.release_id not in known:
            known[prediction.release_id] = ml.have_same_arms(prediction.release, self._serving)
        return [ml.ArmScores(**arm) for arm in prediction.arms] if known[prediction.release_id] else []

    def _compare_case(self, case: Mapping[str, Any]) -> RuleChange | None:
        sides = [judge_case(case, rules) for rules in (self._before, self._after)]
        self._counts["cases"] += 1
        for name, side in zip(("before", "after"), sides, strict=True):
            self._counts[f"cases_{side}_{name}"] += 1
        change = ml.compare(str(case["text"]), self._before, self._after)
        if change is None:
            return None
        kept = {**case, "before": sides[0], "after": sides[1]}
        self._counts["cases_worse"] += CASE_ORDER.index(sides[1]) < CASE_ORDER.index(sides[0])
        self._counts["cases_better"] += CASE_ORDER.index(sides[1]) > CASE_ORDER.index(sides[0])
        return self._make_row(change, case=kept)

    def _make_row(self, change: ml.Change, **of: Any) -> RuleChange:
        self._counts["changed"] += 1
        self._counts.update(change.kinds)
        before, after = change.before.as_dict(), change.after.as_dict()
        risks = [side["labels"].get("risk", "") or side["floor"] for side in (before, after)]
        if "case" in of:
            risks.append(of["case"]["labels"]["risk"])
        elif of["document"].prediction is not None:
            risks.append(of["document"].prediction.risk or "high")
        else:
            risks.append("high")  # not scored yet: nobody knows how hard it is to read
        is_severe = any(risk and SCHEMA.is_at_least("risk", risk, "medium") for risk in risks)
        return RuleChange(
            tryout=self._tryout, kinds=list(change.kinds), before=before, after=after, is_severe=is_severe, **of
        )

    def _keep(self, found: Sequence[RuleChange | None], *, done: int | None = None) -> None:
        RuleChange.objects.bulk_create([row for row in found if row is not None])
        self._tryout.done += len(found) if done is None else done
        self._tryout.counts = dict(self._counts)
        self._tryout.touched_at = timezone.now()
        self._tryout.save(update_fields=["done", "counts", "touched_at"])


CASE_ORDER = ("broken", "open", "met")
"""What the rules alone make of a case: they contradict it, they leave it to the arms, they decide it rightly."""


def judge_case(case: Mapping[str, Any], rules: ml.RuleSet) -> str:
    """By the least and the greatest risk that the verdict leaves open. `must` as in the suite's format."""
    verdict = rules.apply(str(case["text"]))
    risk = SCHEMA["risk"]
    forced = risk.index(verdict.forced["risk"]) if verdict.forced else None
    floor = risk.index(verdict.risk_floor) if verdict.risk_floor else 0
    low, high = (forced, forced) if forced is not None else (floor, len(risk.names) - 1)
    wanted_low, wanted_high = _wanted_risks(case)
    if high < wanted_low or low > wanted_high:
        return "broken"
    decides = case["must"] != "all" or (verdict.forced is not None and dict(verdict.forced) == dict(case["labels"]))
    return "met" if decides and low >= wanted_low and high <= wanted_high else "open"


def _wanted_risks(case: Mapping[str, Any]) -> tuple[int, int]:
    risk, must = SCHEMA["risk"], str(case["must"])
    side, _, bound = must.partition(":")
    if side == "risk_max":
        return 0, risk.index(bound)
    if side == "risk_min":
        return risk.index(bound), len(risk.names) - 1
    exact = risk.index(case["labels"]["risk"])
    return exact, exact


def _in_batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for at in range(0, len(items), BATCH):
        yield items[at : at + BATCH]


@transaction.atomic
def reveal(change: RuleChange, *, by: Person) -> str:
    """The text of a row that is covered. Each look is recorded."""
    text_hash = change.document.text_hash if change.document else ""
    data = {"text_hash": text_hash} if text_hash else {"case": str((change.case or {}).get("id", ""))[:64]}
    audit.record("reveal_rule_change", change, by=by, data=data)
    return change.text
