"""The house rules that a linter cannot see."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "trl", "peft")


def test_the_web_side_never_loads_torch() -> None:
    code = (
        "import os, sys, django; os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'config.settings'); django.setup();"
        "from django.urls import get_resolver; get_resolver().url_patterns;"
        "import config.celery; config.celery.app.loader.import_default_modules();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
