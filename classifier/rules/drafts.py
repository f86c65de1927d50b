"""What is wrong with the texts of a rules folder: every problem at once, each with its place and its cure."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from classifier.errors import RuleError
from classifier.rules.engine import ExampleFailure, RuleSet, parse_spelling
from classifier.rules.patterns import Rule, check_table, compile_expression, parse_rule, parse_rules
from classifier.rules.scope import parse_scopes
from classifier.schema import GOLDEN_STATEMENTS, load_schema

FILE_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}\.toml")
EARNED_FILE = "earned.toml"
"""Counted from annotations when rules are published; no part of a draft."""
MAX_FILE_CHARACTERS = 1_000_000
TOML_LINE = re.compile(r"\(at line (\d+)")
VOUCHED = (
    "builtin is for rules that ship with Heed, as they ship: remove `builtin` and `rationale`. The rule is then tried "
    "on every text and gets its force once annotators have confirmed enough of its hits."
)

Texts = Mapping[str, str]
"""File name -> content of a rules file."""
Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Problem:
    """`rule` and `line` where they are known. The sentence says what is wrong and what to do; it quotes no example."""

    file: str
    rule: str
    line: int | None
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_texts(texts: Texts, base: RuleSet | None = None) -> list[Problem]:
    """All that keeps these files from being a rules version. Rules of `base` may be vouched for, as they stand there.

    Files that cannot be read are told first, then rules that cannot be understood, then examples that fail.
    """
    tables, problems = read_texts(texts)
    problems += _check_rules(texts, tables, base)
    if problems:
        return problems
    try:
        rules = RuleSet(tables)
    except RuleError as error:
        return [_problem(texts, str(error))]
    return [*_check_examples(texts, rules), *_check_statements(rules)]


def read_texts(texts: Texts) -> tuple[Tables, list[Problem]]:
    """The files that are TOML, parsed, in name order; and what is wrong with the others."""
    tables: Tables = {}
    problems: list[Problem] = []
    for file, text in sorted(texts.items()):
        if len(text) > MAX_FILE_CHARACTERS:
            problems.append(Problem(file, "", None, "the file is longer than a million characters: split it."))
            continue
        try:
            tables[file] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            place = TOML_LINE.search(str(error))
            line = int(place[1]) if place else None
            problems.append(Problem(file, "", line, f"not readable as TOML: {error}. Mend the file at that place."))
    return tables, problems


def _check_rules(texts: Texts, tables: Tables, base: RuleSet | None) -> list[Problem]:
    shipped = {rule.id: rule for rule in base.rules} if base else {}
    macros: dict[str, str] = {}
    distress: list[str] = []
    for content in tables.values():
        macros.update(content.get("macros", {}))
        distress += content.get("distress", ())
    found: list[Problem] = []
    for file, content in tables.items():
        try:
            check_table(file, content)
        except RuleError as error:
            found.append(_problem(texts, str(error), file))
            continue
        if "earned" in content:
            found.append(Problem(file, "", None, "[earned] is counted from annotations: take the table out."))
        for raw in content.get("rule", ()):
            try:
                rule = parse_rule(file, raw, macros, distress)
                for expression in rule.expressions:
                    compile_expression(rule, expression)
            except RuleError as error:
                found.append(_problem(texts, str(error), file, str(raw.get("id", ""))))
            else:
                if rule.builtin and not is_vouched(rule, shipped.get(rule.id)):
                    found.append(Problem(file, rule.id, find_line(texts[file], rule.id), VOUCHED))
    # Doubled ids, scopes and spelling; one problem each is enough.
    for parse in (parse_rules, parse_scopes, parse_spelling) if not found else ():
        try:
            parse(tables)
        except RuleError as error:
            found.append(_problem(texts, str(error)))
    return found


def is_vouched(rule: Rule, base: Rule | None) -> bool:
    """Whether a rule of the base, vouched for there, matches no more than it does there."""
    if base is None or not base.builtin:
        return False
    same = (rule.kind, rule.literals, rule.expressions, rule.labels, rule.max_words)
    return same == (base.kind, base.literals, base.expressions, base.labels, base.max_words) and (
        set(rule.unless) >= set(base.unless)
    )


def _check_examples(texts: Texts, rules: RuleSet) -> Iterator[Problem]:
    for failure in rules.check_examples():
        yield _explain_failure(texts, failure)


def _explain_failure(texts: Texts, failure: ExampleFailure) -> Problem:
    if failure.file in texts:
        sentence = f"{failure.problem}: mend its patterns, or the example."
        return Problem(failure.file, failure.rule, find_line(texts[failure.file], failure.rule), sentence)
    phrase = failure.rule.partition(": ")[2]
    for file, text in texts.items():
        if (line := find_line(text, phrase)) is not None:
            return Problem(file, "", line, f"scope {failure.rule}: {failure.problem}. Mend the trigger or its example.")
    return Problem(failure.file, failure.rule, None, failure.problem)


def _check_statements(rules: RuleSet) -> Iterator[Problem]:
    """The five statements, as far as rules decide: no floor above the answer, and nothing else forced."""
    schema = load_schema()
    for number, (text, emotion, risk) in enumerate(GOLDEN_STATEMENTS, 1):
        verdict = rules.apply(text)
        by = ", ".join(item.rule for item in verdict.evidence)
        if verdict.risk_floor and not schema.is_at_least("risk", risk, verdict.risk_floor):
            wrong = f"gets the floor {verdict.risk_floor}, its risk is {risk}"
        elif verdict.forced and (verdict.forced["emotion"], verdict.forced["risk"]) != (emotion, risk):
            wrong = "is forced to other labels than its own"
        else:
            continue
        yield Problem("", "", None, f"statement {number} of the five {wrong} (by {by}): narrow these rules.")


def find_line(text: str, name: str) -> int | None:
    """The first line that holds the name in quotes, from 1."""
    for number, line in enumerate(text.splitlines(), 1):
        if f'"{name}"' in line or f"'{name}'" in line:
            return number
    return None


def _problem(texts: Texts, message: str, file: str = "", rule: str = "") -> Problem:
    """From a RuleError, whose message begins with the file and may name the rule."""
    file = file or next((name for name in texts if message.startswith(f"{name}:")), "")
    sentence = message.removeprefix(f"{file}: ").removeprefix(f"rule {rule}: ")
    return Problem(file, rule, find_line(texts[file], rule) if file and rule else None, sentence)
