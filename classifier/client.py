"""HTTP client of the inference server. Knows no torch, so web and workers may import it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from classifier.errors import ClassifierError, ReleaseConflict
from classifier.types import ArmScores, Decision, Evidence


class InferenceUnavailable(ClassifierError):
    """The inference server cannot answer now; the message says why. Nothing was decided."""


class SwapRefused(ClassifierError):
    """The inference server looked at a bundle and will not serve it (hash, schema or golden check)."""


@dataclass(frozen=True, slots=True)
class ServingState:
    """What an inference server serves. `release` is empty while it has none."""

    release: str
    bundle: str
    manifest_hash: str
    state: str


def decision_from_dict(raw: dict[str, Any]) -> Decision:
    """Inverse of `Decision.as_dict`."""
    return Decision(
        release=raw["release"],
        labels=raw["labels"],
        probabilities=raw["probabilities"],
        arms=tuple(ArmScores(arm["arm"], arm["probabilities"], arm["latency_ms"]) for arm in raw["arms"]),
        evidence=tuple(Evidence(**item) for item in raw["evidence"]),
        risk_floor=raw["risk_floor"],
        latency_ms=raw["latency_ms"],
        unscored=raw["unscored"],
    )


class InferenceClient:
    """One connection pool to one inference server. Safe to share between threads."""

    def __init__(self, url: str, token: str, timeout_s: float = 30.0) -> None:
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 3.0)),
            trust_env=False,
        )

    def close(self) -> None:
        self._http.close()

    def decide(self, texts: Sequence[str]) -> list[Decision]:
        """Decisions in the order of the texts, all by one release. Raises InferenceUnavailable."""
        if not texts:
            return []
        answer = self._send("POST", "/v1/decide", {"texts": list(texts)})
        return [decision_from_dict(raw) for raw in answer["decisions"]]

    def release(self) -> ServingState:
        return ServingState(**self._send("GET", "/v1/release"))

    def swap(self, *, release: str, bundle: str, expected: str, timeout_s: float = 600.0) -> ServingState:
        """Ask to serve `bundle` as `release` where `expected` serves now.

        Raises ReleaseConflict when another release serves, SwapRefused when the bundle fails its checks.
        """
        wanted = {"release": release, "bundle": bundle, "expected": expected}
        return ServingState(**self._send("POST", "/v1/release", wanted, timeout_s=timeout_s))

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else httpx.Timeout(timeout_s, connect=3.0)
        try:
            response = self._http.request(method, path, json=body, timeout=timeout)
            answer: dict[str, Any] = response.json()
        except httpx.ConnectError:
            raise InferenceUnavailable("the inference server does not answer at its address") from None
        except httpx.TimeoutException:
            raise InferenceUnavailable("the inference server did not answer in time") from None
        except (httpx.HTTPError, ValueError):
            raise InferenceUnavailable("the inference server broke off its answer") from None
        if response.status_code == 409:
            raise ReleaseConflict(answer["detail"])
        if response.status_code == 422:
            raise SwapRefused(answer["detail"])
        if response.status_code != 200:
            raise InferenceUnavailable(answer.get("detail", f"the inference server answered {response.status_code}"))
        return answer
