"""The process manager itself, with a small process in place of the Procfile's."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.inference import wait_until

ROOT = Path(__file__).resolve().parent.parent

MANAGE_A_TICKER = """
import sys
from pathlib import Path
from config.stack import Console, StackManager
manager = StackManager(Path(sys.argv[1]) / "up.json", Console(sys.stdout))
manager.add_process("ticker", f"{sys.executable} -u {sys.argv[1]}/ticker.py")
manager.loop()
sys.exit(0 if manager.returncode in (0, 130, 143) else 1)
"""
TICKER = """
import time
from pathlib import Path
ticks = Path(__file__).with_name("ticks")
while True:
    print("tick")
    with ticks.open("a") as file:
        file.write(".")
    time.sleep(0.02)
"""


def test_a_console_that_goes_away_ends_nothing_and_a_stop_still_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "ticker.py").write_text(TICKER, encoding="utf-8")
    ticks = tmp_path / "ticks"
    command = [sys.executable, "-c", MANAGE_A_TICKER, str(tmp_path)]
    manager = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    family = [psutil.Process(manager.pid)]
    try:
        assert manager.stdout is not None
        while b"tick" not in manager.stdout.readline():
            assert manager.poll() is None
        wait_until(ticks.exists)
        family += family[0].children(recursive=True)
        manager.stdout.close()
        seen = ticks.stat().st_size
        wait_until(lambda: ticks.stat().st_size > seen + 20)
        manager.send_signal(signal.SIGTERM)
        assert manager.wait(timeout=60) == 0
        _, alive = psutil.wait_procs(family[1:], timeout=5)
        assert alive == []
    finally:
        for process in family:
            if process.is_running():
                process.kill()
