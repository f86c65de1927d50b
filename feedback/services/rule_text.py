"""One rule in a rules file: read as fields, and written back so that the rest of the file stays as it was."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Array, Table

from feedback.errors import InvalidInput

RULE_ID = re.compile(r"[a-z][a-z0-9_.\-]{0,63}")
WIDE_ARRAY = 100
"""An array that would be longer than so many characters stands one item a line."""


@dataclass(frozen=True, slots=True)
class RuleFields:
    """A `[[rule]]` table, in the order in which its fields are written. An empty field does not stand in the file."""

    id: str
    kind: str
    disabled: bool = False
    floor: str = ""
    emotion: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    builtin: bool = False
    rationale: str = ""
    max_words: int | None = None
    unless: tuple[str, ...] = ()
    idiom_next: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    literals: tuple[str, ...] = ()
    expressions: tuple[str, ...] = ()
    """As written, macros not filled in."""
    examples: tuple[str, ...] = ()
    counterexamples: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}


def list_rules(text: str) -> list[RuleFields]:
    """The rules of a file, in its order; none of a file that is not TOML. Fields of a wrong type are left out."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return []
    tables = raw.get("rule", [])
    return [_read_fields(item) for item in tables if isinstance(item, dict)] if isinstance(tables, list) else []


def _read_fields(raw: Mapping[str, Any]) -> RuleFields:
    values: dict[str, Any] = {"id": str(raw.get("id", "")), "kind": str(raw.get("kind", ""))}
    for item in fields(RuleFields)[2:]:
        value = raw.get(item.name)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            values[item.name] = tuple(value)
        elif isinstance(value, bool | str | dict | int):
            values[item.name] = value
    return RuleFields(**values)


def write_rule(text: str, rule: RuleFields, *, replaces: str = "") -> str:
    """The file with the rule in place of `replaces`, or at its end. Raises InvalidInput."""
    document = _parse(text)
    if not replaces:
        return f"{text.rstrip()}\n\n{_dump_alone(rule)}".lstrip()
    for table in _tables(document):
        if str(table.get("id", "")) == replaces:
            _fill(table, rule)
            return tomlkit.dumps(document)
    raise InvalidInput(f"rule {replaces} is no longer in this file: open the draft again")


def remove_rule(text: str, rule_id: str) -> str:
    """The file without the rule. Raises InvalidInput."""
    document = _parse(text)
    tables = _tables(document)
    for place, table in enumerate(tables):
        if str(table.get("id", "")) == rule_id:
            del tables[place]
            return tomlkit.dumps(document)
    raise InvalidInput(f"rule {rule_id} is no longer in this file: open the draft again")


def _parse(text: str) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(text)
    except (TOMLKitError, ValueError) as error:
        raise InvalidInput("the file is not readable as TOML: mend it as text first") from error


def _tables(document: tomlkit.TOMLDocument) -> AoT:
    tables = document.get("rule", tomlkit.aot())
    if not isinstance(tables, AoT):
        raise InvalidInput("the file has a `rule` that is no list of [[rule]] tables: edit it as text")
    return tables


def _dump_alone(rule: RuleFields) -> str:
    table, tables, document = tomlkit.table(), tomlkit.aot(), tomlkit.document()
    _fill(table, rule)
    tables.append(table)
    document.append("rule", tables)
    return tomlkit.dumps(document)


def _fill(table: Table, rule: RuleFields) -> None:
    standing = table.unwrap()
    for name, value in rule.as_dict().items():
        if value in ("", (), {}, None, False):
            table.pop(name, None)
        elif standing.get(name) != _plain(value):
            table[name] = _item(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _item(value: Any) -> Any:
    if isinstance(value, tuple):
        return _array(value)
    if isinstance(value, Mapping):
        inline = tomlkit.inline_table()
        inline.update(value)
        return inline
    return _string(value) if isinstance(value, str) else value


def _array(values: Iterable[str]) -> Array:
    items = [_string(value) for value in values]
    array = tomlkit.array()
    array.extend(items)
    return array.multiline(sum(len(item.as_string()) + 2 for item in items) > WIDE_ARRAY)


def _string(value: str) -> Any:
    """Literal quotes where there is a backslash, as people write expressions."""
    return tomlkit.string(value, literal="\\" in value and "'" not in value and value.isprintable())
