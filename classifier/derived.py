"""Files derived from a release's parts, kept under HEED_DERIVED_DIR (VAR_DIR/derived): the BERT part as int8 ONNX.

    python -m classifier.derived                    # for the bundle that serves, before its first load needs it
    python -m classifier.derived --bundle DIR

No release carries such a file: its name is the hash of everything it follows from, it may be deleted at any time, and
whoever misses it makes it again in a quarter of a minute. Its bytes can differ between machines (merging an adapter
rounds as the processor does), so what decides whether a release may use it is measured on the file
(`training.jobs.onnx_gate`), and the release records the hash of what was measured.
"""

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from classifier.api import serving_bundle
from classifier.base_models import find_base, sha256_of, var_dir, weights_sha256
from classifier.bundle import read_manifest
from classifier.errors import ClassifierError
from classifier.schema import Schema, load_schema

log = logging.getLogger(__name__)

EXPORT_VERSION = "1"
"""Part of the hash: raise it whenever the export changes what it computes."""
EXPORT_TIMEOUT_S = 600.0
KEPT_FILES = 6
"""The files last used stay; each is about 40 MB for the default base model."""
ROOT = Path(__file__).resolve().parents[1]


class ExportFailed(ClassifierError):
    """The part cannot be had as ONNX; the message says why. Torch serves it."""


def derived_dir() -> Path:
    return Path(os.environ.get("HEED_DERIVED_DIR") or var_dir() / "derived")


def inputs_sha256(part: Path, base: Path, schema: Schema) -> str:
    """Of everything that the exported network follows from: weights, base, order of the outputs, this code."""
    files = {path.name: sha256_of(path) for path in sorted(part.glob("*.safetensors"))}
    adapter = part / "adapter_config.json"
    if adapter.is_file():
        files[adapter.name] = sha256_of(adapter)
    inputs = {
        "export": EXPORT_VERSION,
        "base": weights_sha256(base, trust_manifest=True),
        "files": files,
        "outputs": [[dimension.name, *dimension.names] for dimension in schema.dimensions],
    }
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def ensure_onnx(part: Path, base: Path, schema: Schema) -> Path:
    """The part's ONNX file, made now unless it is there and whole. Raises ExportFailed.

    Made in a process of its own: an export patches torch while it traces, under the feet of whatever else runs here.
    """
    folder = derived_dir()
    target = folder / f"{inputs_sha256(part, base, schema)}.onnx"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock"), timeout=EXPORT_TIMEOUT_S):
            if not _is_whole(target):
                _export_apart(part, base, target)
            target.touch()
    except (OSError, Timeout, subprocess.TimeoutExpired) as error:
        raise ExportFailed(f"{folder} cannot be used, name another by HEED_DERIVED_DIR: {error}") from error
    prune(folder)
    return target


def _is_whole(target: Path) -> bool:
    note = target.with_suffix(".sha256")
    return target.is_file() and note.is_file() and note.read_text(encoding="utf-8") == sha256_of(target)


def _export_apart(part: Path, base: Path, target: Path) -> None:
    log.info("exporting the bert part to %s", target.name)
    draft = target.with_suffix(f".{os.getpid()}.tmp")
    command = [sys.executable, "-m", "classifier.onnx_export", part, base, draft]
    try:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=EXPORT_TIMEOUT_S,
        )
        if done.returncode or not draft.is_file():
            raise ExportFailed(f"the bert part cannot be exported to ONNX: {_last_line(done.stderr)}")
        digest = sha256_of(draft)
        draft.replace(target)
        target.with_suffix(".sha256").write_text(digest, encoding="utf-8")
    finally:
        draft.unlink(missing_ok=True)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it ended without a word"])[-1]


def prune(folder: Path) -> None:
    """Let go of all but the files last used. One that another process still reads stays readable there."""
    by_use = sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_use[KEPT_FILES:]:
        for suffix in (".onnx", ".sha256", ".lock"):
            path.with_suffix(suffix).unlink(missing_ok=True)


def ensure_for_bundle(bundle: Path) -> str:
    """Make what the bundle's first load would make. Returns what there is to say about it."""
    manifest = read_manifest(bundle)
    if manifest.bert is None:
        return f"{manifest.name} has no bert part"
    return str(ensure_onnx(bundle / "bert", find_base(manifest.bert.base), load_schema()))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m classifier.derived", description="Make the derived files now.")
    parser.add_argument("--bundle", type=Path, help="default: the bundle that serves")
    args = parser.parse_args(argv)
    try:
        print(ensure_for_bundle(args.bundle or serving_bundle()[1]))
    except ClassifierError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
