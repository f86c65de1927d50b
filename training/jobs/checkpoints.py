"""Checkpoints of the plain loop: written beside, renamed into place, marked complete last. No pickle is loaded."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from training.jobs.config import write_json

KEPT = 2
MARKER = "COMPLETE"


@dataclass(slots=True)
class LoopState:
    """Where the loop stands. `index`: batches done in `epoch`. `best`: folder name of the best weights so far."""

    epoch: int = 0
    index: int = 0
    step: int = 0
    micro_rows: int = 0
    best: str = ""
    best_loss: float = float("inf")
    stale_epochs: int = 0


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def save_checkpoint(run_dir: Path, model: nn.Module, optimiser: torch.optim.Optimizer, state: LoopState) -> None:
    folder = run_dir / "checkpoints"
    part = folder / ".part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file({name: row.detach().contiguous() for name, row in trainable(model).items()}, part / "weights.safetensors")
    torch.save({"optimiser": optimiser.state_dict(), "rng": _rng_state()}, part / "optimiser.pt")
    write_json(part / "state.json", asdict(state))
    (part / MARKER).touch()
    target = folder / f"step-{state.step:07d}-{state.epoch:04d}"
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for old in _complete(folder)[:-KEPT]:
        shutil.rmtree(old)


def load_checkpoint(run_dir: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> LoopState | None:
    """The last complete one, loaded into model and optimiser; None where there is none."""
    complete = _complete(run_dir / "checkpoints")
    if not complete:
        return None
    saved = load_file(complete[-1] / "weights.safetensors")
    with torch.no_grad():
        for name, weight in trainable(model).items():
            weight.copy_(saved[name])
    # weights_only: nothing but tensors and plain containers is ever unpickled.
    extra: Any = torch.load(complete[-1] / "optimiser.pt", weights_only=True, map_location="cpu")
    optimiser.load_state_dict(extra["optimiser"])
    torch.set_rng_state(extra["rng"]["cpu"])
    if torch.cuda.is_available() and "cuda" in extra["rng"]:
        torch.cuda.set_rng_state(extra["rng"]["cuda"])
    return LoopState(**json.loads((complete[-1] / "state.json").read_text(encoding="utf-8")))


def _rng_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / MARKER).is_file())
