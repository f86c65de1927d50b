"""The whole stack as a user starts it: `manage.py up`, in a process of its own."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psutil

from classifier.bundle import BundleParts, build_bundle
from classifier.calibrate import TEMPERATURES
from classifier.schema import load_schema
from config.embedded import free_port
from tests.classifier.toys import TOY_BERT, TOY_LLAMA, make_bundle

ROOT = Path(__file__).resolve().parent.parent
NOT_INHERITED = (
    "DATABASE_URL",
    "REDIS_URL",
    "DATABASE_POOL",
    "STATICFILES_BACKEND",
    "INFERENCE_URL",
    "INFERENCE_TOKEN",
)


class StackFailed(RuntimeError):
    """The stack ended or did not become ready; holds its last lines."""


@dataclass
class StackProcess:
    """`manage.py up --demo` on a free port. Its lines are kept, so that a failure can be explained."""

    var_dir: Path
    base_models: Path
    port: int = field(default_factory=free_port)
    lines: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self, **settings: str) -> None:
        env = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        env |= {"VAR_DIR": str(self.var_dir), "PORT": str(self.port), "HEED_BASE_MODELS": str(self.base_models)}
        self.lines = []
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--demo"],
            cwd=ROOT,
            env=env | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start(self, timeout_s: float = 180.0, **settings: str) -> float:
        """Returns the seconds until it said that it is ready. Raises StackFailed."""
        started = time.perf_counter()
        self.launch(**settings)
        assert self.process is not None
        assert self.process.stdout is not None
        ready: queue.Queue[bool] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process.stdout, ready), daemon=True).start()
        try:
            is_ready = ready.get(timeout=timeout_s)
        except queue.Empty:
            is_ready = False
        if not is_ready:
            raise StackFailed("not ready:\n" + "".join(self.lines[-60:]))
        return time.perf_counter() - started

    def _read(self, stream: "queue.SimpleQueue[str] | object", ready: "queue.Queue[bool]") -> None:
        for line in stream:  # type: ignore[attr-defined]
            self.lines.append(line)
            if "Heed is ready at" in line:
                ready.put(True)
        ready.put(False)

    def passwords(self) -> dict[str, str]:
        people = json.loads((self.var_dir / "demo_people.json").read_text(encoding="utf-8"))
        return {one["username"]: one["password"] for one in people}

    def marks(self) -> dict[str, int]:
        """Name -> pid of the manager's wrappers, and of the manager itself under `up`."""
        raw = json.loads((self.var_dir / "up.json").read_text(encoding="utf-8"))
        return {name: mark["pid"] for name, mark in raw.items()}

    def commands(self, name: str) -> list[psutil.Process]:
        """The processes that run below one line of the Procfile."""
        return psutil.Process(self.marks()[name]).children(recursive=True)

    def interrupt(self, timeout_s: float = 90.0) -> int:
        """Ctrl-C. Returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """The manager alone, as the kernel would; what it started goes on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def left_over(self) -> list[str]:
        """Command lines of processes that still work in this VAR_DIR."""
        found = []
        for process in psutil.process_iter():
            try:
                in_environment = process.environ().get("VAR_DIR") == str(self.var_dir)
                if in_environment or any(str(self.var_dir) in part for part in process.cmdline()):
                    found.append(" ".join(process.cmdline())[:200])
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def end(self) -> None:
        """Whatever state it is in: nothing of it remains."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.interrupt()
            except subprocess.TimeoutExpired:
                self.process.kill()


def make_toy_starter(folder: Path) -> Path:
    """A starter that a run may follow: a random encoder alone, at the temperature where every fit on its answers ends.

    So a run with a tiny step makes the same bundle again and passes every gate, and a changed one is still refused.
    """
    raw = make_bundle(folder, name="toy-raw", llm=False)
    parts = BundleParts.from_bundle(raw, name="starter-toy")
    temperature = {**parts.calibration.temperature, "bert": dict.fromkeys(load_schema().names, TEMPERATURES[1])}
    target = folder / "starter-toy"
    build_bundle(target, replace(parts, calibration=replace(parts.calibration, temperature=temperature)))
    return target


def start_toy_stack(folder: Path) -> StackProcess:
    """The whole stack on toy models: for tests of who keeps what, not of what the models say."""
    bundle = make_toy_starter(folder)
    stack = StackProcess(folder / "var", folder / "base_models")
    stack.start(STARTER_BUNDLE=str(bundle), HEED_BERT_BASE=TOY_BERT, HEED_LLM_BASE=TOY_LLAMA, OMP_NUM_THREADS="1")
    return stack


CSRF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


def log_in(url: str, username: str, password: str) -> httpx.Client:
    """A browser's session, without the browser. Unsafe requests carry the CSRF header."""
    client = httpx.Client(base_url=url, timeout=60, follow_redirects=True, trust_env=False)
    page = client.get("/accounts/login/")
    found = CSRF.search(page.text)
    assert found is not None, "no CSRF token on the login page"
    form = {"login": username, "password": password, "csrfmiddlewaretoken": found[1]}
    answer = client.post("/accounts/login/", data=form, headers={"Referer": url})
    assert "/accounts/login" not in str(answer.url), f"{username} could not log in"
    client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
    client.headers["Referer"] = url
    return client
