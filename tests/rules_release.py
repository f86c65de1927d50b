"""A serving release whose bundle is on disk as far as rules need it: rules, calibration, manifest; no weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings

from classifier.bundle import ArmPart, Manifest, manifest_sha256, write_manifest
from classifier.hybrid import Calibration
from classifier.schema import SCHEMA_PATH, load_schema
from tests.cast import setup_release
from training.models import Release

MAIN = """\
# Rules that only tests use.
[[rule]]
id = "b.boom"
kind = "block"
floor = "high"
emotion = "self_harm_high"
literals = ["blockword"]
examples = ["blockword"]
counterexamples = ["a word"]

[[rule]]
id = "h.hum"
kind = "hint"
literals = ["hintword"]
examples = ["hintword"]
"""
ALLOW = """\
[[rule]]
id = "a.shipped"
kind = "allow"
literals = ["allowword"]
labels = { emotion = "positive", sentiment = "positive", stress = "low", risk = "none" }
builtin = true
rationale = "A word that only tests use."
examples = ["allowword"]

[[rule]]
id = "a.new"
kind = "allow"
literals = ["fineword"]
labels = { emotion = "positive", sentiment = "positive", stress = "low", risk = "none" }
examples = ["fineword"]
"""
FILES = {"main.toml": MAIN, "allow.toml": ALLOW}


def setup_rules_release(files: dict[str, str] | None = None, *, bert: str = "b" * 12, **overrides: Any) -> Release:
    """Follows the newest release. `bert` stands for the arm's weights."""
    root = Path(settings.RELEASES_DIR) / "bundles"
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="rules-", dir=root))
    (folder / "rules").mkdir()
    for name, text in (files or FILES).items():
        (folder / "rules" / name).write_text(text, encoding="utf-8")
    (folder / "calibration.json").write_text(Calibration.identity(load_schema()).to_json(), encoding="utf-8")
    (folder / "schema.toml").write_bytes(SCHEMA_PATH.read_bytes())
    manifest = Manifest(
        name=folder.name,
        created="2026-11-24T10:00:00+00:00",
        schema_version=load_schema().version,
        policy="cascade",
        rules_version="0" * 12,
        bert=ArmPart("toy-bert", "0" * 64, bert),
        llm=None,
        files={},
    )
    write_manifest(folder, manifest)
    values = {"bundle_uri": f"bundles/{folder.name}", "manifest_hash": manifest_sha256(folder)}
    return setup_release(name=folder.name, **(values | overrides))
