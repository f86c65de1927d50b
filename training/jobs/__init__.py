"""What the GPU runs."""

import os
import sys

# Here, because the libraries read it when they are first imported: trl's trainers report each construction otherwise.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
# A job's own process asks no hub, however it was launched: peft would look its base model up there when it saves. Other
# processes import this package too, and may be about to fetch a base model.
if any(word.startswith("training.jobs.") for word in sys.orig_argv):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
