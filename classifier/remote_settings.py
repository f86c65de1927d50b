"""Where and how a remote LLM arm is asked. No torch, no network.

llm.json: {"remote": {"url": "https://host/v1", "model": "name", ...}}. Environment: HEED_LLM_REMOTE_URL puts the LLM
part of any bundle onto a server, or gives another address to one that has its own; HEED_LLM_REMOTE_MODEL,
HEED_LLM_REMOTE_ROUTE and HEED_LLM_REMOTE_INSECURE (`1`: plain HTTP to other machines as well) go with it. The key is in
HEED_LLM_REMOTE_KEY alone.
"""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from classifier.errors import BundleError

Route = Literal["vllm", "openai"]
ROUTES: tuple[Route, ...] = ("vllm", "openai")

_ENVIRONMENT = {"url": "HEED_LLM_REMOTE_URL", "model": "HEED_LLM_REMOTE_MODEL", "route": "HEED_LLM_REMOTE_ROUTE"}


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    url: str
    """Up to and with `/v1`."""
    model: str
    """The name the server knows it by. It stands in the manifest, so another model is another release."""
    route: Route = "vllm"
    """`vllm`: asks for the tokens of the labels by id (a vLLM that knows `logprob_token_ids`). `openai`: the likeliest
    tokens of any server whose completions API takes prompts as token ids."""
    timeout_s: float = 10.0
    """For a text, all attempts and passes together."""
    attempts: int = 3
    backoff_s: float = 0.2
    """Before the second attempt; twice as long before each further one."""
    concurrency: int = 8
    """Texts asked about at the same time."""
    top_logprobs: int = 20
    """`openai`: how many of the likeliest tokens the server is asked for; many allow 20, some 5."""
    max_missing: float = 0.02
    """`openai`: the share of a decision that labels outside those tokens may hold at most."""
    pause_s: float = 5.0
    """After a failure of the server, so long no text waits for it."""
    insecure: bool = False
    """Plain HTTP to another machine: texts and key can be read on the way."""

    def __post_init__(self) -> None:
        _check_url(self.url, self.insecure)
        if not self.model:
            raise BundleError("remote: model is missing")
        if self.route not in ROUTES:
            raise BundleError(f"remote: route is {self.route!r}, expected {' or '.join(ROUTES)}")
        for name, least in (("timeout_s", 0.01), ("attempts", 1), ("concurrency", 1), ("top_logprobs", 1)):
            if getattr(self, name) < least:
                raise BundleError(f"remote: {name} must be at least {least}")
        if not 0 <= self.max_missing < 1:
            raise BundleError("remote: max_missing must be a share between 0 and 1")

    @classmethod
    def from_json(cls, raw: Any) -> Self:
        """Raises BundleError naming the field."""
        if not isinstance(raw, Mapping):
            raise BundleError("remote must be an object")
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(set(raw) - set(known)):
            raise BundleError(f"remote: {unknown[0]!r} is not a setting")
        for name, value in raw.items():
            if not _is_of(value, known[name].type):
                raise BundleError(f"remote: {name} has the wrong type")
        try:
            return cls(**raw)
        except TypeError as error:
            raise BundleError("remote: url and model are needed") from error


def find_remote(llm_json: Mapping[str, Any], *, model: str) -> RemoteSettings | None:
    """How the part is asked, or None where it runs in this process. `model`: the name to ask for if none is given."""
    raw = llm_json.get("remote")
    given = {name: os.environ[variable] for name, variable in _ENVIRONMENT.items() if os.environ.get(variable)}
    if raw is None and "url" not in given:
        return None
    if not isinstance(raw, Mapping | None):
        raise BundleError("remote must be an object")
    insecure = {"insecure": True} if os.environ.get("HEED_LLM_REMOTE_INSECURE") == "1" else {}
    return RemoteSettings.from_json({"model": model, **(raw or {}), **given, **insecure})


def remote_key() -> str:
    return os.environ.get("HEED_LLM_REMOTE_KEY", "")


def _check_url(url: str, insecure: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BundleError("remote: url must be like https://host/v1")
    if parts.username or parts.password or parts.query:
        raise BundleError("remote: url holds more than an address; a key belongs into HEED_LLM_REMOTE_KEY")
    if parts.scheme == "http" and not insecure and not _is_loopback(parts.hostname):
        raise BundleError("remote: url must be https, or on this machine; HEED_LLM_REMOTE_INSECURE=1 allows it")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_of(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return type(value) is int
    return isinstance(value, bool) if kind is bool else isinstance(value, str)
