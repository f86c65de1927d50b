"""A bundle: one immutable directory with everything that decides, each file by its SHA-256 in one manifest."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

from classifier.base_models import sha256_of
from classifier.errors import BundleError, SchemaError
from classifier.hybrid import POLICIES, Calibration, Policy
from classifier.rules.engine import RuleSet
from classifier.schema import SCHEMA_PATH, Schema, parse_schema

FORMAT = 1
MANIFEST_NAME = "manifest.json"
PROMPT_PATH = Path(__file__).with_name("prompt.txt")
RULES_PATH = Path(__file__).parent / "rules" / "data"
LOADABLE = {".safetensors", ".json", ".toml", ".txt", ".onnx"}
"""Nothing else may be in a bundle: a pickle can run code when it is loaded."""


@dataclass(frozen=True, slots=True)
class ArmPart:
    base: str
    base_sha256: str
    version: str
    """First 12 hex digits of the content hash of the part's folder."""
    kind: Literal["lora", "full", "remote"] = "lora"
    """`remote`: `base` is the name of the model on its server, and `base_sha256` is empty."""


@dataclass(frozen=True, slots=True)
class Manifest:
    name: str
    created: str
    schema_version: str
    policy: Policy
    rules_version: str
    bert: ArmPart | None
    llm: ArmPart | None
    files: Mapping[str, str]
    format: int = FORMAT

    def to_json(self) -> str:
        raw = {
            "format": self.format,
            "name": self.name,
            "created": self.created,
            "schema_version": self.schema_version,
            "policy": self.policy,
            "parts": {
                "rules": {"version": self.rules_version},
                "bert": asdict(self.bert) if self.bert else None,
                "llm": asdict(self.llm) if self.llm else None,
            },
            "files": dict(sorted(self.files.items())),
        }
        return json.dumps(raw, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises BundleError naming what is missing or not understood."""
        try:
            raw: Any = json.loads(text)
            manifest = cls(
                name=str(raw["name"]),
                created=str(raw["created"]),
                schema_version=str(raw["schema_version"]),
                policy=raw["policy"],
                rules_version=str(raw["parts"]["rules"]["version"]),
                bert=_arm_part(raw["parts"].get("bert")),
                llm=_arm_part(raw["parts"].get("llm")),
                files={str(name): str(digest) for name, digest in raw["files"].items()},
                format=raw["format"],
            )
        except KeyError as error:
            raise BundleError(f"{MANIFEST_NAME} lacks {error.args[0]!r}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise BundleError(f"{MANIFEST_NAME} is malformed: {error}") from error
        if manifest.format != FORMAT:
            raise BundleError(f"{MANIFEST_NAME} has format {manifest.format!r}, this version reads {FORMAT}")
        if manifest.policy not in POLICIES:
            raise BundleError(f"{MANIFEST_NAME} has policy {manifest.policy!r}, expected one of {', '.join(POLICIES)}")
        return manifest


@dataclass(frozen=True, slots=True)
class BundleParts:
    """Where each part of a new bundle comes from. `bert_base` and `llm_base` are (name, weights SHA-256)."""

    name: str
    policy: Policy
    calibration: Calibration
    bert: Path | None = None
    bert_base: tuple[str, str] | None = None
    llm: Path | None = None
    llm_base: tuple[str, str] | None = None
    rules: Path = RULES_PATH
    prompt: Path = PROMPT_PATH
    schema: Path = SCHEMA_PATH
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def from_bundle(cls, bundle: Path, *, name: str) -> Self:
        """All parts of an existing bundle under a new name; change some with `dataclasses.replace`."""
        manifest = read_manifest(bundle)
        return cls(
            name=name,
            policy=manifest.policy,
            calibration=read_calibration(bundle),
            bert=bundle / "bert" if manifest.bert else None,
            bert_base=(manifest.bert.base, manifest.bert.base_sha256) if manifest.bert else None,
            llm=bundle / "llm" if manifest.llm else None,
            llm_base=(manifest.llm.base, manifest.llm.base_sha256) if manifest.llm else None,
            rules=bundle / "rules",
            prompt=bundle / "prompt.txt",
            schema=bundle / "schema.toml",
        )


def build_bundle(target: Path, parts: BundleParts) -> Manifest:
    """Assemble a bundle beside `target` and rename it into place. Raises BundleError; then nothing is left behind."""
    if target.exists():
        raise BundleError(f"{target} exists already: a bundle is never changed, choose another name")
    if parts.bert is None and parts.llm is None:
        raise BundleError("a bundle needs at least one arm, bert or llm")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        manifest = _assemble(work, parts)
        work.chmod(0o755)
        work.rename(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return manifest


def _assemble(work: Path, parts: BundleParts) -> Manifest:
    shutil.copyfile(parts.schema, work / "schema.toml")
    shutil.copyfile(parts.prompt, work / "prompt.txt")
    (work / "rules").mkdir()
    for source in sorted(parts.rules.glob("*.toml")):
        shutil.copyfile(source, work / "rules" / source.name)
    (work / "calibration.json").write_text(parts.calibration.to_json(), encoding="utf-8")
    manifest = Manifest(
        name=parts.name,
        created=parts.created,
        schema_version=parse_schema(parts.schema.read_text(encoding="utf-8")).version,
        policy=parts.policy,
        rules_version=RuleSet.load(work / "rules").version,
        bert=_copy_arm(parts.bert, parts.bert_base, work / "bert"),
        llm=_copy_arm(parts.llm, parts.llm_base, work / "llm"),
        files={},
    )
    return write_manifest(work, manifest)


def _copy_arm(source: Path | None, base: tuple[str, str] | None, target: Path) -> ArmPart | None:
    if source is None:
        return None
    if base is None:
        raise BundleError(f"the {target.name} part needs the name and SHA-256 of its base model")
    target.mkdir()
    for path in sorted(source.iterdir()):
        # Training leaves notes and logs beside the weights; only what is loaded goes in.
        if path.is_file() and path.suffix in LOADABLE:
            shutil.copyfile(path, target / path.name)
    kind: Literal["lora", "full", "remote"] = "full" if (target / "model.safetensors").is_file() else "lora"
    if _is_remote(target):
        kind = "remote"
    return ArmPart(base=base[0], base_sha256=base[1], version=folder_version(target), kind=kind)


def _is_remote(part: Path) -> bool:
    settings = part / "llm.json"
    return settings.is_file() and "remote" in json.loads(settings.read_text(encoding="utf-8"))


def folder_version(folder: Path) -> str:
    """First 12 hex digits over the names and contents of a folder's files."""
    lines = [f"{path.relative_to(folder).as_posix()} {sha256_of(path)}" for path in _files(folder)]
    return sha256("\n".join(lines).encode()).hexdigest()[:12]


def write_manifest(bundle: Path, manifest: Manifest) -> Manifest:
    """Hash every file and write the manifest last, renamed into place: its existence means the bundle is complete."""
    hashes = {path.relative_to(bundle).as_posix(): sha256_of(path) for path in _files(bundle)}
    hashes.pop(MANIFEST_NAME, None)
    complete = replace(manifest, files=hashes)
    temporary = bundle / f".{MANIFEST_NAME}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(complete.to_json())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(bundle / MANIFEST_NAME)
    return complete


def read_manifest(bundle: Path) -> Manifest:
    try:
        text = (bundle / MANIFEST_NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{bundle} is no complete bundle: {MANIFEST_NAME} cannot be read ({error})") from error
    return Manifest.from_json(text)


def read_calibration(bundle: Path) -> Calibration:
    return Calibration.from_json(read_text(bundle, "calibration.json"), read_schema(bundle))


def read_schema(bundle: Path) -> Schema:
    try:
        return parse_schema(read_text(bundle, "schema.toml"))
    except SchemaError as error:
        raise BundleError(f"schema.toml of the bundle {bundle.name}: {error}") from error


def read_text(bundle: Path, name: str) -> str:
    try:
        return (bundle / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{name} of the bundle {bundle.name} cannot be read: {error}") from error


def manifest_sha256(bundle: Path) -> str:
    """The identity of a bundle: the manifest holds the hash of everything else."""
    try:
        return sha256_of(bundle / MANIFEST_NAME)
    except OSError as error:
        raise BundleError(f"{bundle} is no complete bundle: {MANIFEST_NAME} cannot be read ({error})") from error


def verify_bundle(bundle: Path) -> Manifest:
    """Hash every file against the manifest. Raises BundleError naming the first that is missing, altered or extra."""
    manifest = read_manifest(bundle)
    found = {path.relative_to(bundle).as_posix(): path for path in _files(bundle)}
    found.pop(MANIFEST_NAME, None)
    for name, expected in manifest.files.items():
        if name not in found:
            raise BundleError(f"{name} of the bundle {manifest.name} is missing")
        if sha256_of(found[name]) != expected:
            raise BundleError(f"{name} of the bundle {manifest.name} is altered: its SHA-256 is not the manifest's")
    for name, path in found.items():
        if name not in manifest.files:
            raise BundleError(f"{name} of the bundle {manifest.name} is not in its manifest")
        if path.suffix not in LOADABLE:
            raise BundleError(f"{name} of the bundle {manifest.name} is not of a kind that is ever loaded")
    return manifest


def _arm_part(raw: Mapping[str, Any] | None) -> ArmPart | None:
    if raw is None:
        return None
    return ArmPart(
        base=raw["base"], base_sha256=raw["base_sha256"], version=raw["version"], kind=raw.get("kind", "lora")
    )


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]
