"""The rules arm: evidence for every hit, a risk floor nothing may lower, and the few texts that are safe for sure."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from classifier.errors import RuleError
from classifier.rules.normalise import Normalised, Normaliser, Spelling
from classifier.rules.patterns import MAX_JUDGED_HITS, PatternIndex, Rule, parse_rules, read_tables
from classifier.rules.scope import IDIOM, PLAIN, PSEUDO, ScopeLayer, Scopes, find_next_word, parse_scopes
from classifier.schema import load_schema
from classifier.types import Evidence, Labels

DATA_DIR = Path(__file__).with_name("data")
VERSION_DIGITS = 12
MAX_EVIDENCE = 100
TRIAL = "trial"
"""Scope of an allow rule that has not earned its force yet: its hit is shown and counted, and decides nothing."""


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    evidence: tuple[Evidence, ...] = ()
    """In order of the text; at most MAX_EVIDENCE, those that set the floor first to stay."""
    risk_floor: str | None = None
    """Raise only."""
    forced: Labels | None = None
    """Labels of an allow rule; never together with block evidence."""
    emotion: str | None = None
    """The emotion that goes with the floor."""


class Judged(NamedTuple):
    rule: Rule
    start: int
    end: int
    scope: str
    sets_floor: bool


@dataclass(frozen=True, slots=True)
class ExampleFailure:
    """A rule or trigger that does not do what its own example says."""

    file: str
    rule: str
    problem: str


class RuleSet:
    """The compiled rules of one folder; immutable and safe to share between threads."""

    def __init__(self, tables: Mapping[str, Mapping[str, Any]], version: str = "") -> None:
        self.version = version
        self.rules = parse_rules(tables)
        self.scopes: Scopes = parse_scopes(tables)
        self._normaliser = Normaliser(parse_spelling(tables))
        self._index = PatternIndex(tuple(rule for rule in self.rules if not rule.disabled), self._normaliser)
        self._on_trial = frozenset(rule for rule in self.rules if not rule.is_active)
        self._scope_layer = ScopeLayer(self.scopes, self._normaliser)
        risk, emotion = load_schema()["risk"], load_schema()["emotion"]
        self._severity = {
            rule.id: (risk.index(rule.floor), emotion.index(rule.emotion) if rule.emotion else -1)
            for rule in self.rules
            if rule.floor is not None
        }

    @classmethod
    def load(cls, directory: Path = DATA_DIR) -> "RuleSet":
        """Read every `*.toml` of a folder. Raises RuleError naming the file, the rule, the reason and the cure."""
        return cls(read_tables(directory), hash_folder(directory))

    def apply(self, text: str) -> RuleVerdict:
        normalised = self._normaliser.normalise(text)
        judged = list(self._judge(normalised.text))
        floors = [item.rule for item in judged if item.sets_floor]
        strongest = max(floors, key=lambda rule: self._severity[rule.id], default=None)
        # An allow rule speaks only when nothing else does: a hint is doubt enough.
        against = [item for item in judged if item.rule.kind != "allow"]
        allowed = [] if against else [item for item in judged if item.scope != TRIAL][:1]
        trials = [item for item in judged if item.scope == TRIAL]
        evidence = collect_evidence(normalised, against or allowed + trials)
        return RuleVerdict(
            evidence=evidence,
            risk_floor=strongest.floor if strongest else None,
            forced=dict(allowed[0].rule.labels) if allowed else None,
            emotion=strongest.emotion if strongest else None,
        )

    def check_examples(self) -> Iterator[ExampleFailure]:
        """Try every rule on its own examples and every trigger on its own: a draft that fails must not be saved."""
        for rule in self.rules:
            if not rule.disabled:
                yield from self._check_rule(rule)
        for trigger in self.scopes.triggers:
            verdict = self.apply(trigger.example)
            name = f"{trigger.category}: {trigger.phrase}"
            if trigger.category == PSEUDO:
                if verdict.risk_floor is None:
                    yield ExampleFailure("scope", name, "the floor does not stand in its example")
            elif not any(item.scope == trigger.category for item in verdict.evidence):
                yield ExampleFailure("scope", name, "its example does not get this scope")
            elif trigger.category in self.scopes.clearing and verdict.risk_floor is not None:
                yield ExampleFailure("scope", name, "its example still gets a floor")

    def _check_rule(self, rule: Rule) -> Iterator[ExampleFailure]:
        for number, example in enumerate(rule.examples, 1):
            verdict = self.apply(example)
            fired = any(item.rule == rule.id for item in verdict.evidence)
            held = rule.floor is None or self._reaches(verdict.risk_floor, rule.floor)
            has_force = rule.kind == "allow" and rule not in self._on_trial
            if not fired or not held or (has_force and verdict.forced != rule.labels):
                yield ExampleFailure(rule.file, rule.id, f"example {number} does not fire")
        for number, example in enumerate(rule.counterexamples, 1):
            verdict = self.apply(example)
            fired = any(item.rule == rule.id for item in verdict.evidence)
            if verdict.risk_floor is not None or (rule.kind == "allow" and (fired or verdict.forced is not None)):
                yield ExampleFailure(rule.file, rule.id, f"counterexample {number} fires")

    @staticmethod
    def _reaches(floor: str | None, wanted: str) -> bool:
        return floor is not None and load_schema().is_at_least("risk", floor, wanted)

    def _judge(self, text: str) -> Iterator[Judged]:
        judged_hits = 0
        hits = dict.fromkeys(self._index.find(text))
        for rule, start, end in hits:
            if rule.kind == "allow":
                if is_allowed(rule, text):
                    scope = TRIAL if rule in self._on_trial else PLAIN
                    yield Judged(rule, start, end, scope, sets_floor=False)
                continue
            judged_hits += 1
            scope = self._judge_scope(text, rule, start, end) if judged_hits <= MAX_JUDGED_HITS else PLAIN
            sets_floor = rule.kind == "block" and not self._scope_layer.clears(scope, rule.ignores)
            yield Judged(rule, start, end, scope, sets_floor)

    def _judge_scope(self, text: str, rule: Rule, start: int, end: int) -> str:
        scope = self._scope_layer.judge(text, start, end)
        is_idiom = not self._scope_layer.clears(scope) and find_next_word(text, end) in rule.idiom_next
        return IDIOM if is_idiom else scope


def is_allowed(rule: Rule, text: str) -> bool:
    words = text.split()
    return len(words) <= rule.max_words and not set(rule.unless) & {word.strip(".,!?'\"()") for word in words}


def collect_evidence(normalised: Normalised, judged: list[Judged]) -> tuple[Evidence, ...]:
    """Hits as evidence, without those inside a wider hit of the same rule and scope."""
    reach: dict[tuple[str, str], int] = {}
    wide: list[Judged] = []
    for item in sorted(judged, key=lambda item: (item.start, -item.end)):
        if item.end > reach.get((item.rule.id, item.scope), -1):
            reach[item.rule.id, item.scope] = item.end
            wide.append(item)
    kept = islice(sorted(wide, key=lambda item: not item.sets_floor), MAX_EVIDENCE)
    evidence = [
        Evidence(item.rule.id, item.rule.kind, *normalised.span(item.start, item.end), item.scope) for item in kept
    ]
    return tuple(sorted(evidence, key=lambda item: (item.start, item.end, item.rule)))


def parse_spelling(tables: Mapping[str, Mapping[str, Any]]) -> Spelling:
    words: set[str] = set()
    aliases: dict[str, str] = {}
    symbols: dict[str, str] = {}
    for file, content in tables.items():
        spelling = content.get("spelling", {})
        words.update(spelling.get("words", ()))
        aliases.update(spelling.get("aliases", {}))
        if not all(isinstance(item, str) for item in (*words, *aliases.values())):
            raise RuleError(f"{file}: spelling: words and aliases must be strings. Put them in quotes.")
        for characters, reading in spelling.get("symbols", {}).items():
            if not all(len(part) == 1 for part in characters.split()):
                raise RuleError(
                    f"{file}: spelling.symbols: {characters!r} must be single characters with blanks between."
                )
            symbols.update(dict.fromkeys(characters.split(), reading))
    return Spelling(frozenset(words), aliases, symbols)


def hash_folder(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*.toml")):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:VERSION_DIGITS]
