"""The rules of releases as texts: what a draft starts from, what a rules run takes, and what a try-out decides with.

A new rules version waits below RELEASES_DIR in a folder named by its hash until its run has made a bundle of it.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from classifier.bundle import Manifest, read_calibration, read_manifest
from classifier.errors import ClassifierError, RuleError
from classifier.rule_changes import Blend
from classifier.rules.drafts import EARNED_FILE, FILE_NAME, Texts
from classifier.rules.engine import RuleSet, hash_folder
from classifier.rules.patterns import parse_rules, read_tables
from classifier.rules.precision import Precision
from training import registry
from training.errors import BundleGone
from training.models import Release

VERSION = re.compile(r"[0-9a-f]{12}")


def rules_folder(release: Release) -> Path:
    """Raises BundleGone."""
    folder = registry.bundle_path(release) / "rules"
    if not folder.is_dir():
        raise BundleGone(f"the bundle of {release.name} is not on this machine's disk: look at RELEASES_DIR")
    return folder


def read_rule_texts(release: Release) -> dict[str, str]:
    """File name -> content, without what was counted. Raises BundleGone."""
    paths = sorted(rules_folder(release).glob("*.toml"))
    return {path.name: path.read_text(encoding="utf-8") for path in paths if path.name != EARNED_FILE}


def load_rules(release: Release) -> RuleSet:
    """Compiled; kept for the next caller, since a release's bundle never changes. Raises BundleGone or RuleError."""
    return _load_rules(rules_folder(release))


@lru_cache(maxsize=4)
def _load_rules(folder: Path) -> RuleSet:
    return RuleSet.load(folder)


def list_fingerprints(release: Release) -> Mapping[str, str]:
    """Rule id -> fingerprint, which tells counts of other forms of a rule apart; empty where the bundle is gone."""
    return _list_fingerprints(registry.bundle_path(release) / "rules")


@lru_cache(maxsize=64)
def _list_fingerprints(folder: Path) -> Mapping[str, str]:
    try:
        return {rule.id: rule.fingerprint for rule in parse_rules(read_tables(folder))}
    except RuleError:
        return {}


def read_blend(release: Release) -> Blend:
    """Raises BundleError."""
    bundle = registry.bundle_path(release)
    manifest = read_manifest(bundle)
    return Blend(read_calibration(bundle), manifest.policy, has_llm=manifest.llm is not None)


def have_same_arms(one: Release, other: Release) -> bool:
    """Whether the scores that one release's arms gave are those that the other's would give, calibrated alike."""
    if one.manifest_hash == other.manifest_hash:
        return True
    try:
        left, right = (read_manifest(registry.bundle_path(item)) for item in (one, other))
    except ClassifierError:
        return False
    return _arms_of(left) == _arms_of(right)


def _arms_of(manifest: Manifest) -> tuple[object, ...]:
    return manifest.bert, manifest.llm, manifest.files.get("prompt.txt"), manifest.files.get("calibration.json")


def keep_rules(texts: Texts, rules: RuleSet, measured: Mapping[str, Precision]) -> str:
    """Put a rules version aside for its run. `measured`: rule id -> precision, which then travels in the bundle.

    Returns the version. The same content is kept once.
    """
    kept = _kept_folder()
    kept.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".keep-", dir=kept))
    try:
        for name, text in texts.items():
            if not FILE_NAME.fullmatch(name) or name == EARNED_FILE:
                raise RuleError(f"{name!r} is no name for a rules file: use lower case letters, digits and .toml")
            (work / name).write_text(text, encoding="utf-8", newline="")
        if any(found.hits for found in measured.values()):
            (work / EARNED_FILE).write_text(write_earned(rules, measured), encoding="utf-8")
        version = RuleSet.load(work).version
        work.chmod(0o755)
        if not (kept / version).is_dir():
            os.rename(work, kept / version)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return version


def write_earned(rules: RuleSet, measured: Mapping[str, Precision]) -> str:
    lines = ["# Counted from annotations when these rules were published; not written by hand.\n"]
    for rule in sorted(rules.rules, key=lambda item: item.id):
        found = measured.get(rule.id)
        if found is not None and found.hits:
            name = rule.id.replace("\\", "\\\\").replace('"', '\\"')
            counts = f"hits = {found.hits}\nconfirmed = {found.confirmed}\n"
            lines.append(f'\n[earned."{name}"]\n{counts}of = "{rule.fingerprint}"\n')
    return "".join(lines)


def kept_rules(version: str) -> Path | None:
    """The folder of a version that waits for its run."""
    folder = _kept_folder() / version
    return folder if VERSION.fullmatch(version) and folder.is_dir() else None


def copy_kept_rules(version: str, target: Path) -> None:
    """Raises BundleGone where the version is not kept here, or is not what its name says."""
    source = kept_rules(version)
    if source is None or hash_folder(source) != version:
        raise BundleGone(f"rules version {version!r} is not below RELEASES_DIR: publish the draft again")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=shutil.copyfile)


def _kept_folder() -> Path:
    return Path(settings.RELEASES_DIR) / "rules"
