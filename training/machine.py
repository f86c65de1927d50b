"""What the machine of a training worker has: said by the worker, read by the page that launches runs. No torch here."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from classifier.base_models import MANIFEST_NAME, Role, base_name, configured_base
from training.jobs.reporting import installed_trackers

MB = 1024 * 1024
SMI_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class BaseModel:
    name: str
    role: Role
    size_mb: float
    layers: int
    hidden: int


@dataclass(frozen=True, slots=True)
class Machine:
    cpus: int
    memory_mb: float
    free_mb: float
    """Of the disk that run folders are on."""
    gpus: tuple[str, ...] = ()
    gpu_mb: float = 0.0
    """Memory of the smallest of them."""
    bases: tuple[BaseModel, ...] = ()
    trackers: tuple[str, ...] = ()
    """Those that `report_to` may name."""

    def find_base(self, name: str) -> BaseModel | None:
        return next((base for base in self.bases if base.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        bases = tuple(BaseModel(**base) for base in raw["bases"])
        lists = {name: tuple(raw[name]) for name in ("gpus", "trackers")}
        return cls(**{**raw, **lists, "bases": bases})


def look_at_machine(runs: Path, bases: Path) -> Machine:
    gpus = list_gpus()
    return Machine(
        cpus=os.cpu_count() or 1,
        memory_mb=round(psutil.virtual_memory().total / MB),
        free_mb=round(shutil.disk_usage(_existing(runs)).free / MB),
        gpus=tuple(name for name, _ in gpus),
        gpu_mb=min((size for _, size in gpus), default=0.0),
        bases=tuple(list_bases(bases)),
        trackers=tuple(installed_trackers()),
    )


def _existing(folder: Path) -> Path:
    return folder if folder.exists() or folder.parent == folder else _existing(folder.parent)


def list_gpus() -> list[tuple[str, float]]:
    """Name and memory of each NVIDIA card. Asked of the driver's tool: torch would take seconds and hold the card."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=True).stdout
        pairs = (line.rpartition(",") for line in said.splitlines() if line.strip())
        return [(name.strip(), float(size)) for name, _, size in pairs]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def list_bases(folder: Path) -> list[BaseModel]:
    """The complete base models of the folder, and the local ones that the configuration names."""
    roles: tuple[Role, ...] = ("bert", "llm")
    local = [Path(configured_base(role)) for role in roles if Path(configured_base(role)).is_dir()]
    complete = [path.parent for path in sorted(folder.glob(f"*/{MANIFEST_NAME}"))]
    found = [read_base(path) for path in (*complete, *local)]
    return list({base.name: base for base in found if base is not None}.values())


def read_base(folder: Path) -> BaseModel | None:
    """None for a folder that holds no model."""
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        is_causal = any("CausalLM" in name for name in config.get("architectures") or ())
        return BaseModel(
            name=base_name(str(folder)),
            role="llm" if is_causal else "bert",
            size_mb=round(sum(path.stat().st_size for path in folder.glob("*.safetensors")) / MB, 1),
            layers=int(config.get("num_hidden_layers") or config.get("n_layer") or 12),
            hidden=int(config.get("hidden_size") or config.get("n_embd") or 768),
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return None
