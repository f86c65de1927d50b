"""Tags of the house: keys, dates in plain words, marked texts, icons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django import template
from django.template import Context
from django.templatetags.static import static
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from feedback import keys, ml
from feedback.forms import label_option
from feedback.models import Annotation
from feedback.spans import plain_span
from feedback.views.cards import describe_change

register = template.Library()

VERDICT_ICONS: Mapping[str, str] = {
    Annotation.Verdict.CORRECT: "agree",
    Annotation.Verdict.CORRECTED: "correct",
    Annotation.Verdict.INCORRECT: "wrong",
    Annotation.Verdict.UNSURE: "unsure",
    Annotation.Verdict.SKIP: "skip",
}
RISK_ICONS: Mapping[str, str] = {"none": "risk-none", "low": "risk-low", "medium": "risk-medium", "high": "risk-high"}


@register.simple_tag
def icon(name: str, label: str = "") -> SafeString:
    """A drawing of the sprite; silent for screen readers unless it has a label."""
    href = f"{static('icons.svg')}#{name}"
    if label:
        return format_html('<svg class="icon" role="img" aria-label="{}"><use href="{}"/></svg>', label, href)
    return format_html('<svg class="icon" aria-hidden="true"><use href="{}"/></svg>', href)


def _find(context: Context, action: str) -> keys.Key:
    return keys.find_key(context["shell"].page, action)


@register.simple_tag(takes_context=True)
def key(context: Context, action: str) -> SafeString:
    """The attributes that bind a control to its key."""
    found = _find(context, action)
    return format_html('data-key="{}" aria-keyshortcuts="{}"', found.key, found.spoken)


@register.simple_tag(takes_context=True)
def keycap(context: Context, action: str) -> SafeString:
    """The printed key."""
    return format_html('<kbd aria-hidden="true">{}</kbd>', _find(context, action).printed)


@register.filter
def words(value: str) -> str:
    """`self_harm_low` -> `self-harm low`."""
    return value.replace("self_harm", "self-harm").replace("_", " ")


@register.filter
def verdict_icon(verdict: str) -> str:
    return VERDICT_ICONS[verdict]


@register.filter
def change_of(annotation: Annotation) -> str:
    return describe_change(annotation)


@register.simple_tag
def risk_badge(value: str, label: str = "") -> SafeString:
    """Word, shape and colour together."""
    name = value if value in RISK_ICONS else "unscored"
    drawing = icon(RISK_ICONS.get(name, "risk-unscored"))
    return format_html('<span class="risk risk-{}">{}{}</span>', name, drawing, label or value or "unscored")


@register.filter
def seconds_in_words(seconds: float) -> str:
    return plain_span(seconds)


def _time(moment: datetime, sentence: str) -> SafeString:
    exact = date_format(timezone.localtime(moment), "j M Y, H:i:s")
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact, sentence)


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """`3 min ago`, with the exact time on hover; a dash for None."""
    if moment is None:
        return "–"
    gone = (timezone.now() - moment).total_seconds()
    return _time(moment, "just now" if gone < 10 else f"{plain_span(gone)} ago")


@register.filter
def due(moment: datetime) -> SafeString:
    """`due in 12 min` or `overdue 3 min`."""
    left = moment - timezone.now()
    late = left < timedelta(0)
    return _time(moment, f"{'overdue' if late else 'due in'} {plain_span(left.total_seconds())}")


@register.filter
def is_past(moment: datetime) -> bool:
    return moment < timezone.now()


@register.filter
def item(row: Sequence[str], place: int) -> str:
    return row[place]


@register.filter
def kind_title(kind: str) -> str:
    """`label_ppo` -> `Label PPO`."""
    return ml.title_of(kind)


@register.filter
def megabytes(size_mb: float) -> str:
    """`340 MB`, `1.4 GB`."""
    return f"{size_mb:.0f} MB" if size_mb < 1_000 else f"{size_mb / 1_000:.1f} GB"


@register.filter
def option_label(name: str) -> str:
    return label_option(name)


@register.filter
def figure(value: object) -> str:
    """A number in four places, yes or no, anything else as it is; a dash for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


@register.filter
def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@register.simple_tag
def marked_text(text: str, evidence: Sequence[Mapping[str, Any]]) -> SafeString:
    """The text with `<mark>` around each piece of evidence; overlapping pieces become one mark."""
    return format_html_join("", "{}", ((part,) for part in _mark(text, evidence)))


def _mark(text: str, evidence: Sequence[Mapping[str, Any]]) -> list[str]:
    parts: list[str] = []
    position = 0
    for start, end, rules in _merge(text, evidence):
        title = ", ".join(f"{item['kind']} {item['rule']} ({item['scope'].replace('_', ' ')})" for item in rules)
        kind = "block" if any(item["kind"] == "block" for item in rules) else rules[0]["kind"]
        parts.append(text[position:start])
        parts.append(format_html('<mark class="mark-{}" title="{}">{}</mark>', kind, title, text[start:end]))
        position = end
    return [*parts, text[position:]]


def _merge(text: str, evidence: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, list[Mapping[str, Any]]]]:
    merged: list[tuple[int, int, list[Mapping[str, Any]]]] = []
    for item in sorted(evidence, key=lambda item: (item["start"], item["end"])):
        start, end = max(0, item["start"]), min(len(text), item["end"])
        if start >= end:
            continue
        if merged and start < merged[-1][1]:
            first, last, rules = merged[-1]
            merged[-1] = (first, max(last, end), [*rules, item])
        else:
            merged.append((start, end, [item]))
    return merged


@register.simple_tag(takes_context=True)
def is_here(context: Context, place: Any) -> bool:
    return bool(place.holds(context["shell"].route))
