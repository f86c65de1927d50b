"""Rules as data: reading them from TOML, refusing what is malformed, and finding their hits in a normalised text."""

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import re2
from ahocorasick_rs import AhoCorasick, MatchKind

from classifier.errors import RuleError, SchemaError
from classifier.rules.precision import Precision, estimate_precision
from classifier.schema import load_schema

Kind = Literal["block", "allow", "hint"]
Hit = tuple["Rule", int, int]
"""A rule and the span it matched, in the normalised text."""

DEFAULT_MAX_WORDS = 12
# Beyond so many hits a text is no longer judged hit by hit: what is too long to clear is not cleared. It also bounds
# the work of an expression that scans far ahead from each of its matches.
MAX_JUDGED_HITS = 2000
FINGERPRINT_DIGITS = 12
MACRO = re.compile(r"\{([a-z_]+)\}")
MACRO_DEPTH = 5
SAFE_RISKS = ("none", "low")
TOP_LEVEL: dict[str, type] = {
    **dict.fromkeys(("macros", "scope", "spelling", "earned"), dict),
    **dict.fromkeys(("rule", "distress"), list),
}
LISTS = ("literals", "expressions", "unless", "idiom_next", "ignores", "examples", "counterexamples")
FIELD_TYPES: dict[str, type] = {
    **dict.fromkeys(("id", "kind", "floor", "emotion", "rationale"), str),
    **dict.fromkeys(LISTS, list),
    **dict.fromkeys(("builtin", "disabled"), bool),
    "max_words": int,
    "labels": dict,
}
EARNED_FIELDS = {"hits": int, "confirmed": int, "of": str}


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: hits are looked up by rule
class Rule:
    """One rule. Patterns are matched against the normalised text (lower case, full words: `i am`, `do not`)."""

    id: str
    kind: Kind
    file: str
    literals: tuple[str, ...] = ()
    expressions: tuple[str, ...] = ()
    """RE2, macros filled in."""
    floor: str | None = None
    """block: the least risk the text can get."""
    emotion: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """allow: what it forces."""
    max_words: int = DEFAULT_MAX_WORDS
    unless: tuple[str, ...] = ()
    """allow: stays silent where one of these words stands in the text."""
    idiom_next: tuple[str, ...] = ()
    """block: words that make an idiom of the hit when they follow it directly ("I want to die | of embarrassment")."""
    ignores: tuple[str, ...] = ()
    """block: scopes that do not clear this rule, for instance `past` for an attempt."""
    examples: tuple[str, ...] = ()
    counterexamples: tuple[str, ...] = ()
    builtin: bool = False
    disabled: bool = False
    rationale: str = ""
    hits: int = 0
    """Annotated hits, from the `[earned]` table; 0 where that counted another form of this rule."""
    confirmed: int = 0

    @property
    def precision(self) -> Precision:
        return estimate_precision(self.confirmed, self.hits)

    @property
    def is_active(self) -> bool:
        """Whether its hits have force. An allow rule must have earned it or be vouched for in writing."""
        return not self.disabled and (self.kind != "allow" or self.builtin or self.precision.is_earned)

    @property
    def fingerprint(self) -> str:
        """Of all that decides what it matches and does: counts of a rule hold for this form of it alone."""
        parts = (self.kind, self.literals, self.expressions, self.floor, self.emotion, sorted(self.labels.items()))
        rest = (self.max_words, self.unless, self.idiom_next, self.ignores)
        return hashlib.sha256(json.dumps([*parts, *rest]).encode()).hexdigest()[:FINGERPRINT_DIGITS]


class PatternIndex:
    """All rules compiled once: literals in one automaton, expressions behind one RE2 set."""

    def __init__(self, rules: tuple[Rule, ...], normalise: Callable[[str], str]) -> None:
        self._literals: list[tuple[str, Rule]] = []
        self._expressions: list[tuple[Any, Rule]] = []
        self._set = re2.Set.SearchSet(make_options())
        for rule in rules:
            for literal in rule.literals:
                self._literals.append((normalise(literal).strip(), rule))
            for expression in rule.expressions:
                self._expressions.append((compile_expression(rule, expression), rule))
                self._set.Add(expression)
        # Overlapping, not leftmost-longest: a long harmless literal must never swallow a short dangerous one.
        self._automaton = AhoCorasick([text for text, _ in self._literals], MatchKind.Standard)
        try:
            self._set.Compile()
        except re2.error as error:
            raise RuleError(
                f"the {len(self._expressions)} expressions together are too large for RE2: use fewer nested counts "
                "like (?:a{0,20} ){0,20}, or list phrases as literals."
            ) from error

    def find(self, text: str) -> Iterator[Hit]:
        """Every hit, some twice. A line break is read as a space and, in a second look, as the end of a sentence: so
        nothing on a later line undoes what an earlier one says."""
        yield from self._find(text.replace("\n", " "))
        if "\n" in text:
            yield from self._find(text.replace("\n", "."))

    def _find(self, flat: str) -> Iterator[Hit]:
        for index, start, end in self._automaton.find_matches_as_indexes(flat, overlapping=True):
            rule = self._literals[index][1]
            if not (is_word_boundary(flat, start) and is_word_boundary(flat, end)):
                continue
            if rule.kind != "allow" or (start, end) == trim(flat, 0, len(flat)):
                yield rule, start, end
        data = flat.encode()
        for index in sorted(self._set.Match(data) or ()):
            expression, rule = self._expressions[index]
            if rule.kind == "allow":
                start, end = trim(flat, 0, len(flat))
                if expression.fullmatch(flat[start:end]):
                    yield rule, start, end
                continue
            for start, end in islice(find_spans(expression, data, flat.isascii()), MAX_JUDGED_HITS + 1):
                yield rule, *trim(flat, start, end)


def find_spans(expression: Any, data: bytes, is_ascii: bool) -> Iterator[tuple[int, int]]:
    """The matches in UTF-8 as spans of characters. RE2 works on bytes; its own way back costs more than the search."""
    place = characters = 0
    for match in expression.finditer(data):
        start, end = match.span()
        if is_ascii:
            yield start, end
            continue
        first = characters + len(data[place:start].decode())
        place, characters = end, first + len(data[start:end].decode())
        yield first, characters


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without blanks and marks at its ends; the span itself where it holds nothing else."""
    first, last = start, end
    while first < last and not text[first].isalnum():
        first += 1
    while last > first and not text[last - 1].isalnum():
        last -= 1
    return (first, last) if first < last else (start, end)


def is_word_boundary(text: str, place: int) -> bool:
    return place in (0, len(text)) or not (text[place - 1].isalnum() and text[place].isalnum())


def make_options() -> re2.Options:
    options = re2.Options()
    options.case_sensitive = False
    # RE2 prints to standard error otherwise; the reason travels in RuleError instead.
    options.log_errors = False
    options.max_mem = 64 << 20
    return options


def compile_expression(rule: Rule, expression: str) -> Any:
    """Compile with RE2, which matches in linear time. Raises RuleError with reason and cure."""
    where = f"{rule.file}: rule {rule.id}: expression {rule.expressions.index(expression) + 1}"
    try:
        compiled = re2.compile(expression, make_options())
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise RuleError(f"{where} is refused by RE2: {reason}. {explain_refusal(expression, reason)}") from error
    if compiled.match(""):
        raise RuleError(f"{where} matches the empty text and so every text. Make at least one part of it required.")
    return compiled


REFUSALS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"\(\?[=!]"),
        "Look-around (here a lookahead) takes more than linear time: match what follows as part of the expression, or "
        "name what clears the hit in idiom_next or a scope.",
    ),
    (
        re.compile(r"\(\?<[=!]"),
        "Look-around (here a lookbehind) takes more than linear time: match what stands before as part of the "
        "expression, or name what clears the hit in a scope.",
    ),
    (
        re.compile(r"\\[1-9]|\(\?P="),
        "A back-reference takes more than linear time: list the forms it stands for, as (?:a a|b b).",
    ),
    (
        re.compile(r"\(\?>|[+*?}]\+"),
        "RE2 never goes back, so atomic and possessive forms mean nothing: leave the mark out.",
    ),
)
"""What RE2 leaves out, and what to write in its place."""


def explain_refusal(expression: str, reason: str) -> str:
    if "repetition size" in reason:
        return "Counts may go up to 1000, nested ones multiplied: use a smaller one, or + or *."
    for pattern, cure in REFUSALS:
        if pattern.search(expression):
            return cure
    return "Mend it there (RE2 syntax), or list the phrases as literals."


def read_tables(directory: Path) -> dict[str, dict[str, Any]]:
    """File name -> parsed content of every `*.toml`, in name order. Raises RuleError."""
    paths = sorted(directory.glob("*.toml"))
    if not paths:
        raise RuleError(f"{directory.name}: no rules file (*.toml) in this folder. Copy the shipped rules there.")
    tables: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            tables[path.name] = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RuleError(f"{path.name}: not readable as TOML: {error}. Mend the file at that place.") from error
    return tables


def parse_rules(tables: Mapping[str, Mapping[str, Any]]) -> tuple[Rule, ...]:
    """All `[[rule]]` tables with the macros of all files filled in. Raises RuleError naming file, rule and cure."""
    macros: dict[str, str] = {}
    distress: list[str] = []
    for file, content in tables.items():
        check_table(file, content)
        macros.update(content.get("macros", {}))
        distress += content.get("distress", ())
    rules: dict[str, Rule] = {}
    for file, content in tables.items():
        for raw in content.get("rule", ()):
            rule = parse_rule(file, raw, macros, distress)
            if rule.id in rules:
                raise RuleError(f"{file}: rule {rule.id} exists already in {rules[rule.id].file}. Give it another id.")
            rules[rule.id] = rule
    earned = parse_earned(tables)
    return tuple(with_counts(rule, earned.get(rule.id)) for rule in rules.values())


def parse_earned(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Rule id -> `{hits, confirmed, of}` of all `[earned."<id>"]` tables, which are counted, not written by hand."""
    earned: dict[str, Mapping[str, Any]] = {}
    for file, content in tables.items():
        for rule, raw in content.get("earned", {}).items():
            where = f"{file}: earned {rule}"
            if not isinstance(raw, Mapping) or {name: type(value) for name, value in raw.items()} != EARNED_FIELDS:
                raise RuleError(f"{where}: needs hits, confirmed and of. Count the rule's hits again.")
            if not 0 <= raw["confirmed"] <= raw["hits"]:
                raise RuleError(f"{where}: confirmed must lie between 0 and hits. Count both again.")
            earned[rule] = raw
    return earned


def with_counts(rule: Rule, earned: Mapping[str, Any] | None) -> Rule:
    """The rule with its counts, where they were made of this form of it."""
    if earned is None or earned["of"] != rule.fingerprint:
        return rule
    return replace(rule, hits=earned["hits"], confirmed=earned["confirmed"])


def check_table(file: str, content: Mapping[str, Any]) -> None:
    for name, value in content.items():
        if name not in TOP_LEVEL:
            raise RuleError(f"{file}: unknown table {name!r}. Use one of {', '.join(TOP_LEVEL)}.")
        if not isinstance(value, TOP_LEVEL[name]):
            raise RuleError(f"{file}: {name} has the wrong form. Write it as in the shipped files, rules as [[rule]].")


def parse_rule(file: str, raw: Mapping[str, Any], macros: Mapping[str, str], distress: Sequence[str]) -> Rule:
    where = f"{file}: rule {raw.get('id', '(without id)')}"
    for name, value in raw.items():
        if name not in FIELD_TYPES:
            raise RuleError(f"{where}: unknown field {name!r}. Remove it or correct its spelling.")
        if not is_of_type(value, FIELD_TYPES[name]):
            raise RuleError(f"{where}: field {name} has the wrong type. Compare it with a shipped rule.")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    values["expressions"] = tuple(fill_macros(where, text, macros) for text in values.get("expressions", ()))
    if values.get("kind") == "allow":
        values["unless"] = (*values.get("unless", ()), *distress)
    try:
        rule = Rule(file=file, **values)
    except TypeError as error:
        raise RuleError(f"{where}: id or kind is missing. Add both.") from error
    check_rule(where, rule)
    return rule


def is_of_type(value: object, wanted: type) -> bool:
    """Whether a TOML value fits a field. Lists must hold strings; a boolean is no number."""
    if isinstance(value, bool) or wanted is bool:
        return isinstance(value, bool) and wanted is bool
    if isinstance(value, list):
        return wanted is list and all(isinstance(item, str) for item in value)
    return isinstance(value, wanted)


def fill_macros(where: str, text: str, macros: Mapping[str, str]) -> str:
    for _ in range(MACRO_DEPTH):
        for name in MACRO.findall(text):
            if name not in macros:
                raise RuleError(f"{where}: unknown macro {{{name}}}. Define it in a [macros] table.")
            text = text.replace(f"{{{name}}}", macros[name])
    return text


def check_rule(where: str, rule: Rule) -> None:
    """Raises RuleError where the fields do not fit the kind or the label schema."""
    schema = load_schema()
    if rule.kind not in get_args(Kind):
        raise RuleError(f"{where}: kind is {rule.kind!r}. Use block, allow or hint.")
    if (not rule.literals and not rule.expressions) or not all(map(str.strip, rule.literals)):
        raise RuleError(f"{where}: no pattern, or an empty one. Add a literal or an expression.")
    if (rule.kind == "block") != (rule.floor is not None):
        raise RuleError(f"{where}: a block rule needs a floor and no other kind may have one. Set or remove `floor`.")
    if (rule.kind == "allow") != bool(rule.labels):
        raise RuleError(f"{where}: an allow rule needs labels and no other kind may have them. Set or remove `labels`.")
    if rule.builtin and not rule.rationale:
        raise RuleError(f"{where}: builtin needs a rationale. Say in one sentence why it is safe without measurement.")
    try:
        if rule.floor is not None:
            schema["risk"].index(rule.floor)
        if rule.emotion is not None:
            schema["emotion"].index(rule.emotion)
        if rule.labels:
            schema.check_labels(rule.labels)
    except SchemaError as error:
        raise RuleError(f"{where}: {error}. Use a label of the schema.") from error
    if rule.labels and rule.labels["risk"] not in SAFE_RISKS:
        raise RuleError(f"{where}: an allow rule may force risk none or low only. Make it a block rule instead.")
