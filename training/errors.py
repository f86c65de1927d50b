"""What training refuses on purpose; every message says what would help. `status` is the HTTP status that fits."""


class TrainingError(Exception):
    status = 409


class RunEnded(TrainingError):
    """The run has ended and cannot be cancelled any more."""


class NothingToRestore(TrainingError):
    """The release to go back to serves already, or its bundle is gone."""


class BundleGone(TrainingError):
    """The files of a release or of a rules version are not on this machine's disk."""


class NoServingRelease(TrainingError):
    """A run needs a release to go on from and to be measured against."""


class RunRefused(TrainingError):
    """The run would fail: its worker or its data lacks something, which the message names with the cure."""


class RunFailed(TrainingError):
    """A job or its result is unusable; the message goes into `run.error`."""
