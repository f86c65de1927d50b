"""Spans of time in plain words."""


def plain_span(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h`, `5 days`."""
    seconds = abs(seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} days"
