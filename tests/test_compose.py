"""The compose files fit the compose specification and name what the design asks for. They are not run here."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
FILES = ("docker-compose.yml", "docker-compose.gpu.yml")


def check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("name", FILES)
def test_fits_the_compose_schema(name: str) -> None:
    done = check(ROOT / name)
    assert done.returncode == 0, done.stdout


def test_the_schema_check_refuses_a_broken_file(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text("services:\n  web:\n    image: heed\n    restartt: always\n")
    assert check(broken).returncode == 1


def test_names_every_process() -> None:
    services = yaml.safe_load((ROOT / FILES[0]).read_text())["services"]
    assert set(services) == {"postgres", "redis", "prepare", "web", "inference", "worker", "trainer", "beat"}


def test_has_no_default_secret() -> None:
    text = (ROOT / FILES[0]).read_text()
    for name in ("POSTGRES_PASSWORD", "SECRET_KEY", "INFERENCE_TOKEN"):
        assert f"${{{name}:?" in text
        assert f"${{{name}:-" not in text


def test_the_gpu_overlay_reserves_for_worker_and_inference() -> None:
    services = yaml.safe_load((ROOT / FILES[1]).read_text())["services"]
    assert set(services) == {"inference", "trainer"}
    for service in services.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
