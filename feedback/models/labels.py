"""The four label columns, shared by predictions and annotations. Their values come from the label schema."""

from django.db import models

from feedback.ml import load_schema

SCHEMA = load_schema()


def label_field(dimension: str) -> "models.CharField[str, str]":
    """One dimension's value; blank means unknown."""
    choices = [(name, name.replace("_", " ")) for name in SCHEMA[dimension].names]
    return models.CharField(max_length=32, choices=choices, blank=True, default="")


class LabelColumns(models.Model):
    emotion = label_field("emotion")
    sentiment = label_field("sentiment")
    stress = label_field("stress")
    risk = label_field("risk")

    class Meta:
        abstract = True

    @property
    def labels(self) -> dict[str, str]:
        """The known labels in schema order."""
        return {name: value for name in SCHEMA.names if (value := getattr(self, name))}
