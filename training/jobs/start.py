"""Which base model and which earlier part a job goes on from. No torch here."""

from dataclasses import dataclass
from pathlib import Path

from classifier.base_models import Role, configured_base, ensure_base, find_base
from classifier.bundle import ArmPart, read_manifest
from training.jobs.config import START_SERVING, JobConfig


@dataclass(frozen=True, slots=True)
class Start:
    """`part` is None where training starts from the base model."""

    base: Path
    part: Path | None


def find_start(config: JobConfig) -> Start:
    """Raises BaseModelError or BundleError."""
    arm = config.arm
    serving = serving_arm(config, arm)
    if config.base is not None:
        base = config.base
    elif serving is not None:
        base = find_base(serving.base, config.base_models)
    else:
        base = ensure_base(arm, configured_base(arm), config.base_models)
    if config.init_from is not None:
        return Start(base, config.init_from)
    if serving is not None and config.serving_bundle and config.options.start_from == START_SERVING:
        return Start(base, config.serving_bundle / arm)
    return Start(base, None)


def serving_arm(config: JobConfig, arm: Role) -> ArmPart | None:
    if config.serving_bundle is None:
        return None
    manifest = read_manifest(config.serving_bundle)
    return manifest.bert if arm == "bert" else manifest.llm
