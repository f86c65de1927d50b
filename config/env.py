"""Settings from environment variables. Odd values are refused at start, with the variable's name and the cure."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off", "")


def env_str(name: str, default: str) -> str:
    return os.environ.get(name, default)


def env_bool(name: str, default: bool) -> bool:
    raw = os.environ.get(name)
    if raw is None:
        return default
    if raw.lower() in TRUE:
        return True
    if raw.lower() in FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={raw!r}: expected one of {', '.join(TRUE + FALSE[:-1])}")


def env_int(name: str, default: int, *, low: int = 0, high: int = 2**31) -> int:
    raw = os.environ.get(name)
    if raw is None:
        return default
    try:
        value = int(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={raw!r}: expected a whole number") from None
    if not low <= value <= high:
        raise ImproperlyConfigured(f"{name}={value}: expected {low} to {high}")
    return value


def env_list(name: str, default: str) -> list[str]:
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def env_path(name: str, default: Path) -> Path:
    raw = os.environ.get(name)
    return Path(raw).expanduser().resolve() if raw else default


def env_secret(name: str, fallback: Path) -> str:
    """`NAME`, else the file that `NAME_FILE` names (container secrets), else `fallback`, which `manage.py up` makes.

    Without any of the three a random key for this process alone: sessions then end with the process.
    """
    if os.environ.get(name):
        return os.environ[name]
    if path := os.environ.get(f"{name}_FILE"):
        return Path(path).read_text(encoding="utf-8").strip()
    if fallback.exists():
        return fallback.read_text(encoding="utf-8").strip()
    from django.core.management.utils import get_random_secret_key

    return get_random_secret_key()
