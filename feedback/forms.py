"""What people type, checked. A form makes the value that a service takes; refusals name the field and the cure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django import forms
from django.contrib.auth.password_validation import password_validators_help_texts
from django.utils.formats import date_format

from feedback import ml
from feedback.errors import InvalidInput
from feedback.models import Annotation, RiskCase, Role
from feedback.models.labels import SCHEMA
from feedback.queries import DocumentFilter
from feedback.services.annotation import Submission
from feedback.services.moderation import SAFE_RISKS, CaseAnswer

MAX_NOTE_CHARACTERS = 2_000
MAX_ACTIVE_MS = 24 * 3_600_000


def refuse_invalid(form: forms.BaseForm) -> Mapping[str, Any]:
    """The cleaned values. Raises InvalidInput that names the fields, for forms whose fields are not typed by hand."""
    if form.is_valid():
        return form.cleaned_data
    reasons = [f"field {name}: {' '.join(map(str, errors)).rstrip('.')}" for name, errors in form.errors.items()]
    raise InvalidInput("; ".join(reasons))


def _value_choices(dimension: str) -> list[tuple[str, str]]:
    return [(name, name) for name in SCHEMA[dimension].names]


class AnswerForm(forms.Form):
    """The annotation card."""

    document = forms.IntegerField(min_value=1)
    prediction = forms.IntegerField(min_value=1, required=False)
    verdict = forms.ChoiceField(choices=Annotation.Verdict.choices)
    idempotency_key = forms.UUIDField()
    comment = forms.CharField(max_length=MAX_NOTE_CHARACTERS, required=False)
    active_ms = forms.IntegerField(min_value=0, max_value=MAX_ACTIVE_MS, required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in SCHEMA.names:
            self.fields[name] = forms.ChoiceField(choices=_value_choices(name), required=False)

    def submission(self) -> Submission:
        """Raises InvalidInput."""
        values = refuse_invalid(self)
        labels = {name: values[name] for name in SCHEMA.names if values[name]}
        return Submission(
            document_id=values["document"],
            verdict=values["verdict"],
            idempotency_key=values["idempotency_key"],
            # The card always sends its chips; only a correction says something by them.
            labels=labels if values["verdict"] == Annotation.Verdict.CORRECTED else {},
            prediction_id=values["prediction"],
            comment=values["comment"],
            active_ms=values["active_ms"],
        )


class FlagForm(forms.Form):
    document = forms.IntegerField(min_value=1)
    comment = forms.CharField(max_length=MAX_NOTE_CHARACTERS, required=False)


class ClaimForm(forms.Form):
    """The proof that the case is in one's hands."""

    token = forms.UUIDField()

    def claim_token(self) -> UUID:
        """Raises InvalidInput."""
        token: UUID = refuse_invalid(self)["token"]
        return token


class DecisionForm(ClaimForm):
    version = forms.IntegerField(min_value=1)
    text_hash = forms.CharField(max_length=64)
    outcome = forms.CharField()
    """An outcome, or `not_at_risk:<risk>`: one button says both."""
    note = forms.CharField(max_length=MAX_NOTE_CHARACTERS, required=False)

    def clean_outcome(self) -> tuple[str, str]:
        outcome, _, risk = self.cleaned_data["outcome"].partition(":")
        known = {(value, "") for value in RiskCase.Outcome.values if value != RiskCase.Outcome.NOT_AT_RISK}
        known |= {(str(RiskCase.Outcome.NOT_AT_RISK), safe) for safe in SAFE_RISKS}
        if (outcome, risk) not in known:
            raise forms.ValidationError("Choose one of the offered decisions.")
        return outcome, risk

    def answer(self) -> CaseAnswer:
        """Raises InvalidInput."""
        values = refuse_invalid(self)
        outcome, risk = values["outcome"]
        return CaseAnswer(
            token=values["token"],
            version=values["version"],
            text_hash=values["text_hash"],
            outcome=outcome,
            note=values["note"],
            risk=risk,
        )


class FilterForm(forms.Form):
    """The chips and the search of the documents page."""

    state = forms.CharField(required=False)
    risk = forms.CharField(required=False)
    emotion = forms.CharField(required=False)
    q = forms.CharField(required=False, max_length=200, strip=True)
    before = forms.CharField(required=False)

    def wanted(self) -> DocumentFilter:
        """Raises InvalidInput."""
        values = refuse_invalid(self)
        return DocumentFilter(**{name: values[name] for name in ("state", "risk", "emotion", "q")})


class PasteForm(forms.Form):
    texts = forms.CharField(
        label="Texts, one a line",
        widget=forms.Textarea(attrs={"rows": 8}),
        strip=False,
        error_messages={"required": "Paste at least one text."},
    )


class FileForm(forms.Form):
    file = forms.FileField(
        label="File",
        help_text="JSONL with a field “text” on each line, or CSV with a column “text”; “id” is optional. UTF-8.",
        widget=forms.FileInput(attrs={"accept": ".jsonl,.ndjson,.csv,.tsv"}),
        error_messages={"required": "Choose a file.", "empty": "The file is empty: choose one with texts in it."},
    )


class FeedbackFileForm(forms.Form):
    file = forms.FileField(
        label="Feedback file",
        help_text="A JSON list of rows with text, correct_labels, incorrect_labels and feedback; or one row a line.",
        widget=forms.FileInput(attrs={"accept": ".json,.jsonl,.ndjson"}),
        error_messages={"required": "Choose a file.", "empty": "The file is empty: choose one with rows in it."},
    )


class InviteForm(forms.Form):
    role = forms.ChoiceField(choices=Role.choices, label="Role")
    note = forms.CharField(
        max_length=200, required=False, label="For whom", help_text="So that you know later which link was whose."
    )


class AcceptForm(forms.Form):
    """The public page behind an invitation."""

    username = forms.CharField(
        max_length=150,
        label="Username",
        help_text="Letters, digits and @ . + - _",
        widget=forms.TextInput(attrs={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"}),
    )
    password = forms.CharField(
        label="Password", strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "new-password"})
    )
    password_again = forms.CharField(
        label="Password again", strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "new-password"})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password"].help_text = " ".join(password_validators_help_texts())

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if "password" in values and values.get("password_again") not in (None, values["password"]):
            self.add_error("password_again", "The two passwords differ: type the same one twice.")
        return values


class RolesForm(forms.Form):
    roles = forms.MultipleChoiceField(choices=Role.choices, required=False)


class ApiKeyForm(forms.Form):
    name = forms.CharField(max_length=80, label="Name", help_text="What the key is for, such as “nightly import”.")


class RollBackForm(forms.Form):
    reason = forms.CharField(
        max_length=200, label="Reason", help_text="Stands in the history of releases for everybody to read."
    )


class SnapshotForm(forms.Form):
    """How what people have said becomes a snapshot. A field left blank stands at its default."""

    feedback_weight = forms.FloatField(
        required=False,
        min_value=0.01,
        max_value=100,
        label="Feedback weight",
        help_text="How many rows of the corpus one corrected text counts for.",
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    disagreement = forms.ChoiceField(
        required=False,
        choices=[("soft", "soft: each answer has its share"), ("majority", "majority: the larger side settles it")],
        label="Disagreement",
        help_text="What becomes of a label on which people differ.",
    )
    replay_rows = forms.IntegerField(
        required=False,
        min_value=0,
        label="Corpus rows",
        help_text="Rows of the corpus trained on beside the feedback, so that nothing is forgotten; 0 takes all.",
    )
    influence_cap = forms.FloatField(
        required=False,
        min_value=0.01,
        max_value=1,
        label="Influence cap",
        help_text="The largest share of all feedback that one person may have, from three people on; 1 is no cap.",
        widget=forms.NumberInput(attrs={"step": "any"}),
    )

    def options(self) -> dict[str, Any]:
        return {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}


NEW_SNAPSHOT = "new"
OFFERED_SNAPSHOTS = 20
RARE_OPTIONS = frozenset(
    {
        "max_tokens", "warmup_share", "weight_decay", "clip_norm", "checkpoint_steps", "seed", "calibration_rows",
        "test_rows", "gradient_checkpointing", "quantise", "report_to", "dropout", "lora_layers", "slot_noise",
    }
)  # fmt: skip
"""Options that most runs leave as they are: folded away."""


class RunForm(forms.Form):
    """The options of one kind of run, as its dataclass declares them, the data and the base model."""

    snapshot = forms.ChoiceField(
        label="Data", help_text="A snapshot never changes: the same one makes two runs comparable."
    )
    base = forms.ChoiceField(
        required=False, label="Base model", help_text="Another one than the serving arm's needs “start from” = base."
    )
    publishes = forms.BooleanField(
        required=False,
        initial=True,
        label="Serve it when every gate passes",
        help_text="Without it the run ends with a report and a candidate that serves nobody.",
    )

    def __init__(self, specs: Sequence[ml.OptionSpec], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.specs = specs
        for spec in specs:
            self.fields[spec.name] = make_option_field(spec)
        wanted = str(self.initial.get("snapshot", ""))
        self.fields["snapshot"].choices = list_snapshot_choices(wanted)  # type: ignore[attr-defined]
        names = ml.list_bases()
        self.fields["base"].choices = [("", "As the serving arm has it"), *[(name, name) for name in names]]  # type: ignore[attr-defined]

    @property
    def main_fields(self) -> list[forms.BoundField]:
        return [self[spec.name] for spec in self.specs if spec.name not in RARE_OPTIONS]

    @property
    def rare_fields(self) -> list[forms.BoundField]:
        return [self[spec.name] for spec in self.specs if spec.name in RARE_OPTIONS]

    @property
    def has_rare_errors(self) -> bool:
        return any(field.errors for field in self.rare_fields)

    def chosen_snapshot(self) -> ml.DatasetSnapshot | None:
        """None where a new one is to be frozen."""
        chosen = str(self.cleaned_data["snapshot"])
        return None if chosen == NEW_SNAPSHOT else ml.find_snapshot(chosen)

    def options(self) -> dict[str, int | float | bool | str]:
        """The options that differ from what the form was shown with are sent like all others."""
        return {spec.name: self.cleaned_data[spec.name] for spec in self.specs}


def label_option(name: str) -> str:
    """`lora_rank` -> `LoRA rank`."""
    label = name.replace("_", " ").capitalize()
    for plain, proper in (("Lora", "LoRA"), ("Kl ", "KL "), ("Ppo ", "PPO "), ("Sft ", "SFT "), ("Kto ", "KTO ")):
        label = label.replace(plain, proper)
    return label


def list_snapshot_choices(wanted: str) -> list[tuple[str, str]]:
    """A new one, the newest ones, and the `wanted` one, which may be older."""
    snapshots = list(ml.list_snapshots()[:OFFERED_SNAPSHOTS])
    if wanted not in ("", NEW_SNAPSHOT, *[snapshot.content_hash for snapshot in snapshots]):
        snapshots += [found] if (found := ml.find_snapshot(wanted)) else []
    named = [
        (each.content_hash, f"{each.content_hash[:12]}: {each.rows} rows, {date_format(each.created_at, 'j M Y, H:i')}")
        for each in snapshots
    ]
    return [(NEW_SNAPSHOT, "What people have said by now"), *named]


class CompareForm(forms.Form):
    """Two to four runs side by side."""

    run = forms.TypedMultipleChoiceField(coerce=int)
    curve = forms.CharField(required=False, max_length=80)

    MAX = 4

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        given = self.data.getlist("run") if hasattr(self.data, "getlist") else []
        self.fields["run"].choices = [(pk, pk) for pk in given if pk.isdecimal()]  # type: ignore[attr-defined]

    def clean_run(self) -> list[int]:
        chosen = list(dict.fromkeys(self.cleaned_data["run"]))
        if not 2 <= len(chosen) <= self.MAX:
            raise forms.ValidationError(f"choose two to {self.MAX} runs to compare")
        return chosen


def make_option_field(spec: ml.OptionSpec) -> forms.Field:
    label = label_option(spec.name)
    help_text = spec.help[:1].upper() + spec.help[1:] + "."
    if spec.choices:
        choices = [(choice, choice or "no") for choice in spec.choices]
        needed = "" not in spec.choices
        return forms.ChoiceField(
            choices=choices, initial=spec.default, label=label, help_text=help_text, required=needed
        )
    if spec.type is bool:
        return forms.BooleanField(required=False, initial=spec.default, label=label, help_text=help_text)
    if spec.type is int:
        low, high = (None if bound is None else int(bound) for bound in (spec.low, spec.high))
        return forms.IntegerField(min_value=low, max_value=high, initial=spec.default, label=label, help_text=help_text)
    if spec.type is float:
        return forms.FloatField(
            min_value=spec.low,
            max_value=spec.high,
            initial=f"{spec.default:g}",
            label=label,
            help_text=help_text,
            widget=forms.NumberInput(attrs={"step": "any"}),
        )
    return forms.CharField(initial=spec.default, label=label, help_text=help_text)
