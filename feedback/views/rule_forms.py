"""The forms of the rules pages. What a rules version must be is said by the draft's validation, not here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms

from feedback.models.labels import SCHEMA
from feedback.services.rule_text import RULE_ID, RuleFields
from feedback.services.rule_tryouts import MAX_DOCUMENTS

KINDS = [
    ("block", "block: sets a least risk"),
    ("allow", "allow: forces safe labels"),
    ("hint", "hint: asks the LLM, silences allow rules"),
]
LINE_BREAK = "⏎"
"""Stands for a line break inside one item, since every line of a field is an item."""
OWN_FILE = "own.toml"
DEFAULT_DOCUMENTS = 1_000


class LinesField(forms.CharField):
    """One item a line. Blanks at the ends of a line are kept: in an expression they mean something."""

    def __init__(self, rows: int, label: str, help_text: str) -> None:
        attrs = {"rows": rows, "spellcheck": "false", "class": "code"}
        super().__init__(
            required=False, strip=False, label=label, help_text=help_text, widget=forms.Textarea(attrs=attrs)
        )

    def to_python(self, value: Any) -> Any:
        lines = str(super().to_python(value) or "").splitlines()
        return tuple(line.replace(LINE_BREAK, "\n") for line in lines if line.strip())

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return "\n".join(item.replace("\n", LINE_BREAK) for item in value)
        return value


def _choice(dimension: str, label: str, help_text: str = "") -> forms.ChoiceField:
    choices = [("", "–"), *((name, name.replace("_", " ")) for name in SCHEMA[dimension].names)]
    return forms.ChoiceField(choices=choices, required=False, label=label, help_text=help_text)


class VersionForm(forms.Form):
    """What a person saw of the draft when they pressed the button."""

    version = forms.IntegerField(min_value=1, widget=forms.HiddenInput(attrs={"id": False}))


class RuleForm(VersionForm):
    file = forms.ChoiceField(label="File", help_text="A new rule goes to the end of this file.")
    id = forms.RegexField(
        rf"^(?:{RULE_ID.pattern})\Z",
        label="Id",
        help_text="Stands in the evidence of every hit, such as active.intent: small letters, digits and . _ -",
        error_messages={"invalid": "Begin with a small letter; then small letters, digits and . _ - only."},
    )
    kind = forms.ChoiceField(choices=KINDS, label="Kind")
    disabled = forms.BooleanField(
        required=False, label="Disabled", help_text="Stays in the file, is applied to no text."
    )
    literals = LinesField(6, "Literals, one a line", "Found at word boundaries, in any spelling that Heed reads.")
    expressions = LinesField(
        6, "Expressions, one a line", "RE2 on the normalised text: lower case, “i am”, “do not”. {name} is a macro."
    )
    floor = _choice("risk", "Risk floor", "Block: the least risk of a text in which it stands plainly.")
    emotion = _choice("emotion", "Emotion with the floor")
    ignores = forms.MultipleChoiceField(
        required=False,
        label="Scopes that do not clear it",
        help_text="Block: a hit in such a scope counts all the same.",
        widget=forms.CheckboxSelectMultiple,
    )
    idiom_next = LinesField(2, "Words that make an idiom of it", "Block: when one follows the hit directly.")
    label_emotion = _choice("emotion", "Forced emotion")
    label_sentiment = _choice("sentiment", "Forced sentiment")
    label_stress = _choice("stress", "Forced stress")
    label_risk = _choice("risk", "Forced risk", "Allow: none or low.")
    max_words = forms.IntegerField(
        required=False, min_value=1, max_value=100, label="Most words", help_text="Allow: longer texts are left alone."
    )
    unless = LinesField(2, "Words that silence it", "Allow: beside the distress list of the file.")
    builtin = forms.BooleanField(
        required=False, label="Vouched for", help_text="Only as it ships; a changed rule has to earn its force."
    )
    rationale = forms.CharField(required=False, max_length=500, label="Why it is safe without measurement")
    examples = LinesField(4, "Must fire, one text a line", f"{LINE_BREAK} stands for a line break.")
    counterexamples = LinesField(
        4, "Must not fire, one text a line", "Must get no floor, and no force of an allow rule."
    )

    def __init__(self, *args: Any, files: Sequence[str], scopes: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = [*files, *([] if OWN_FILE in files else [OWN_FILE])]
        self._set_choices("file", [(name, name) for name in names])
        self._set_choices("ignores", [(name, name.replace("_", " ")) for name in scopes])

    def _set_choices(self, name: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    def rule(self) -> RuleFields:
        """Of a valid form."""
        values = self.cleaned_data
        plain = {name: values[name] for name in RuleFields.__dataclass_fields__ if name != "labels"}
        labels = {name: values[f"label_{name}"] for name in SCHEMA.names if values[f"label_{name}"]}
        return RuleFields(**{**plain, "ignores": tuple(values["ignores"]), "labels": labels})

    @staticmethod
    def initial_of(rule: RuleFields) -> dict[str, Any]:
        labels = {f"label_{name}": rule.labels.get(name, "") for name in SCHEMA.names}
        return {**rule.as_dict(), "ignores": list(rule.ignores), **labels}


class RuleFileForm(VersionForm):
    text = forms.CharField(
        required=False,
        strip=False,
        label="Content",
        help_text="TOML. An empty file is taken out of the draft.",
        widget=forms.Textarea(attrs={"rows": 36, "spellcheck": "false", "class": "code"}),
    )


class OpenDraftForm(forms.Form):
    note = forms.CharField(
        max_length=180, required=False, label="What for", help_text="Stands in the history of releases later."
    )


class TryoutForm(VersionForm):
    documents = forms.IntegerField(
        min_value=0,
        max_value=MAX_DOCUMENTS,
        initial=DEFAULT_DOCUMENTS,
        label="Newest documents",
        help_text=f"So many stored texts, at most {MAX_DOCUMENTS}.",
    )
    suite = forms.FileField(
        required=False,
        label="Functional suite",
        help_text="JSONL: id, functionality, text, labels, must on each line.",
        widget=forms.FileInput(attrs={"accept": ".jsonl,.ndjson"}),
    )


class PublishForm(VersionForm):
    publishes = forms.BooleanField(
        required=False,
        initial=True,
        label="Serve it when every gate passes",
        help_text="Without it the gates are tried and nothing changes.",
    )
