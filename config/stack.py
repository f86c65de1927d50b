"""The whole of Heed on one machine, under one process manager: what `manage.py up` runs.

Order of start: secrets, leftovers of a killed predecessor, embedded servers, `manage.py prepare`, then the Procfile.
Order of stop: the Procfile's processes, then Valkey, then PostgreSQL.
"""

import contextlib
import fcntl
import json
import multiprocessing
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import honcho.manager
import honcho.printer
from honcho.environ import parse_procfile
from honcho.process import Process

from config.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from config.leftovers import Mark, end_supervised, read_marks, write_marks

ROOT = Path(__file__).resolve().parent.parent
STOP_GRACE_S = 25
"""Longer than gunicorn's and Celery's own graces: a request in hand is answered, a run writes its checkpoint."""

RESTART_AFTER_S = (0.5, 1, 2, 5, 10)
DEMO_PEOPLE = "demo_people.json"


class StackError(RuntimeError):
    """The stack cannot start; the message says why and what helps."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    var_dir: Path
    host: str
    port: int
    has_demo: bool


class RestartingProcess(Process):  # type: ignore[misc]
    """A Procfile process that is started again when it dies by itself, ever more slowly."""

    def __init__(self, *args: Any, ending: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ending = ending

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        relay = _WithoutStops(events)
        # Signals are for the command, not for this wrapper. A handler, unlike SIG_IGN, is not inherited by the command.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for wait_s in _restart_waits():
            super().run(relay, ignore_signals=False)
            if self.ending.wait(wait_s):
                break
            self._events = events
            self._send_message(f"{self.name} ended by itself and is started again\n")
        events.put(relay.last_stop)


def _restart_waits() -> Iterator[float]:
    """Quick at first, then every 10 s; a process that held out for a minute starts from the beginning."""
    place, started = 0, time.monotonic()
    while True:
        yield RESTART_AFTER_S[place]
        place = 0 if time.monotonic() - started > 60 else min(place + 1, len(RESTART_AFTER_S) - 1)
        started = time.monotonic()


class _WithoutStops:
    """Keeps the manager from hearing that a process stopped: it would stop all the others."""

    def __init__(self, events: Any) -> None:
        self.events = events
        self.last_stop: Any = None

    def put(self, message: Any) -> None:
        if message.type == "stop":
            self.last_stop = message
        else:
            self.events.put(message)


class Console:
    """Standard output that may go away (a closed terminal, the end of a pipe): from then on nothing is written.

    An error here would end the manager and leave what it started behind.
    """

    def __init__(self, out: TextIO) -> None:
        self.out: TextIO | None = out

    def write(self, text: str) -> int:
        self._try(lambda out: out.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda out: out.flush())

    def isatty(self) -> bool:
        return self.out is not None and self.out.isatty()

    def _try(self, act: Callable[[TextIO], object]) -> None:
        if self.out is None:
            return
        try:
            act(self.out)
        except (OSError, ValueError):
            self.out = None


class StackManager(honcho.manager.Manager):  # type: ignore[misc]
    """Honcho's manager, with restarts and with a record of what it started."""

    def __init__(self, marks_path: Path, console: Console) -> None:
        super().__init__(honcho.printer.Printer(console))
        self.marks_path = marks_path
        self.ending = multiprocessing.Event()
        self._process_ctor = self._make_process

    def _make_process(self, *args: Any, **kwargs: Any) -> RestartingProcess:
        return RestartingProcess(*args, ending=self.ending, **kwargs)

    def terminate(self) -> None:
        self.ending.set()
        super().terminate()

    def _start(self) -> None:
        super()._start()
        # The wrappers are marked, not the commands: ending a wrapper's tree ends whatever it runs by then.
        marks = {name: Mark.of(entry["process"].pid) for name, entry in self._processes.items()}
        write_marks(self.marks_path, {"up": Mark.of(os.getpid()), **marks})


class Stack:
    def __init__(self, options: StackOptions, out: TextIO = sys.stdout) -> None:
        self.options = options
        self.out = Console(out)
        self.var_dir = options.var_dir
        self.marks_path = self.var_dir / "up.json"
        self.env = dict(os.environ)

    def run(self) -> int:
        """Start everything and stay until a signal comes. Returns the exit code: 0 after Ctrl-C or TERM."""
        self.var_dir.mkdir(parents=True, exist_ok=True)
        with self._only_one(), contextlib.ExitStack() as at_exit:
            self._end_leftovers()
            require_free_port(self.options.host, self.options.port)
            self._set_environment()
            self._start_servers(at_exit)
            self._manage("prepare", *(["--demo"] if self.options.has_demo else []))
            return self._run_processes()

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        """A lock that the kernel frees when this process dies, however it dies."""
        with (self.var_dir / "up.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(
                    f"Heed already runs on {self.var_dir}. Stop it there, or set VAR_DIR to another folder."
                ) from None
            # A forked wrapper would hold the lock on after this process was killed.
            os.register_at_fork(after_in_child=lock.close)
            yield

    def _end_leftovers(self) -> None:
        for name, mark in read_marks(self.marks_path).items():
            if process := mark.find():
                self.say(f"ending {name} (pid {mark.pid}), left over from a start that was killed")
                end_supervised(process)

    def _set_environment(self) -> None:
        inference_port = free_port()
        self.env |= {
            "VAR_DIR": str(self.var_dir),
            "HOST": self.options.host,
            "PORT": str(self.options.port),
            "WEB_WORKERS": self.env.get("WEB_WORKERS", "2"),
            "INFERENCE_PORT": str(inference_port),
            "INFERENCE_URL": f"http://127.0.0.1:{inference_port}",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{self.env.get('PATH', '')}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), self.env.get("PYTHONPATH", "")])),
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "config.settings",
            # Celery's workers treat TERM as "finish softly, then checkpoint" (see its soft shutdown).
            "REMAP_SIGTERM": "SIGQUIT",
            "HF_HUB_OFFLINE": self.env.get("HF_HUB_OFFLINE", "1"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        for name in ("secret_key", "inference_token"):
            make_secret(self.var_dir / name)

    def _start_servers(self, at_exit: contextlib.ExitStack) -> None:
        for name, server in (
            ("DATABASE_URL", EmbeddedPostgres(self.var_dir / "postgres")),
            ("REDIS_URL", EmbeddedValkey(self.var_dir / "valkey")),
        ):
            if not self.env.get(name):
                at_exit.callback(server.stop)
                self.env[name] = server.start()

    def _manage(self, *arguments: str) -> None:
        done = subprocess.run([sys.executable, str(ROOT / "manage.py"), *arguments], env=self.env, cwd=ROOT)
        if done.returncode:
            raise StackError(f"`manage.py {arguments[0]}` failed; its message stands above")

    def _run_processes(self) -> int:
        honcho.manager.KILL_WAIT = STOP_GRACE_S
        manager = StackManager(self.marks_path, self.out)
        for name, command in parse_procfile((ROOT / "Procfile").read_text(encoding="utf-8")).processes.items():
            manager.add_process(name, command, env=self.env, cwd=str(ROOT))
        ended = threading.Event()
        threading.Thread(target=self._announce, args=(ended,), daemon=True).start()
        manager.loop()
        ended.set()
        self.marks_path.unlink(missing_ok=True)
        return 0 if manager.returncode in (130, 143, 0) else 1

    def _announce(self, ended: threading.Event) -> None:
        """Say where Heed is, once the pages and the classifier answer."""
        waiting_for = [self.address + "/accounts/login/", self.env["INFERENCE_URL"] + "/health"]
        while waiting_for and not ended.wait(0.2):
            if answers(waiting_for[0]):
                waiting_for.pop(0)
        if not ended.is_set():
            self.say(self._banner())

    @property
    def address(self) -> str:
        host = "127.0.0.1" if self.options.host in ("0.0.0.0", "::") else self.options.host
        return f"http://{host}:{self.options.port}"

    def _banner(self) -> str:
        lines = ["", f"Heed is ready at {self.address}"]
        people = self.var_dir / DEMO_PEOPLE
        if self.options.has_demo and people.exists():
            lines += [
                f"  {one['role']:<10} {one['username']:<8} {one['password']}" for one in json.loads(people.read_text())
            ]
            lines.append(f"  (made on the first start, kept in {people}; delete that file once you have changed them)")
        else:
            lines.append("  make the first person: python manage.py create_person NAME --role admin")
        lines += ["  Heed is not a crisis service.", "  Ctrl-C stops everything.", ""]
        return "\n".join(lines)

    def say(self, text: str) -> None:
        print(text, file=self.out, flush=True)


def require_free_port(host: str, port: int) -> None:
    """Raises StackError when something listens there already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StackError(
                f"port {port} on {host} cannot be had ({error.strerror}). Another program may use it: "
                f"stop that, or choose another port, e.g. PORT={port + 1}."
            ) from None


def make_secret(path: Path) -> None:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(48), encoding="utf-8")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
