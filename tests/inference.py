"""A real inference server in a process of its own, on toy bundles."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from classifier.bundle import manifest_sha256
from classifier.client import InferenceClient, InferenceUnavailable
from config.embedded import free_port
from tests.classifier.toys import make_bundle

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "a token for tests"


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Poll a condition of another process. Raises TimeoutError naming the condition."""
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise TimeoutError(f"not so within {timeout_s:.0f} s: {condition}")


@dataclass
class InferenceProcess:
    """`folder` is its VAR_DIR; bundles are made under `folder/releases`."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bundles(self) -> Path:
        return self.folder / "releases"

    def client(self, timeout_s: float = 30.0) -> InferenceClient:
        return InferenceClient(self.url, TOKEN, timeout_s)

    def make_bundle(self, name: str, seed: int = 1) -> Path:
        return make_bundle(self.bundles, name=name, seed=seed)

    def point_to(self, release: str, bundle: Path) -> None:
        """Write the release pointer, as the registry does."""
        pointer = {"release": release, "bundle": str(bundle), "manifest_sha256": manifest_sha256(bundle)}
        self.bundles.mkdir(parents=True, exist_ok=True)
        draft = self.bundles / "serving.tmp"
        draft.write_text(json.dumps(pointer), encoding="utf-8")
        os.replace(draft, self.bundles / "serving.json")

    def start(self, **settings: str) -> None:
        self.port = self.port or free_port()
        env = {
            **os.environ,
            "VAR_DIR": str(self.folder),
            "HEED_BASE_MODELS": str(self.bundles / "base_models"),
            "INFERENCE_PORT": str(self.port),
            "INFERENCE_TOKEN": TOKEN,
            "INFERENCE_THREADS": "1",
            "INFERENCE_POLL_S": "0.1",
            **settings,
        }
        self.process = subprocess.Popen([sys.executable, "-m", "classifier.server"], cwd=ROOT, env=env)
        wait_until(self.is_serving)

    def is_serving(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the inference server ended at start"
        return self.serves() != ""

    def serves(self) -> str:
        client = self.client(2)
        try:
            return client.release().release
        except InferenceUnavailable:
            return ""
        finally:
            client.close()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None
