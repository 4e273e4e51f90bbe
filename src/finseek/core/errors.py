"""Every error that finseek raises on purpose.

    FinseekError            exit 1: the work failed
    ├── Stopped             exit 75: asked to stop, all is saved, the same command goes on
    ├── InputError          exit 2: wrong usage or input (also a ValueError)
    │   ├── ConfigError     a key, a value or a combination in the config
    │   └── MissingPart     an optional part that is not installed
    └── ArtifactError       a file of a run is missing, altered or not what its name says

A message is one line and holds the value, the rule and the remedy.
"""

from __future__ import annotations


class FinseekError(Exception):
    """Base of all errors raised on purpose; the command line prints it as one line and exits."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Stopped(FinseekError):
    """Work that was asked to stop and saved its state: the same command goes on from there."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: a scheduler may start it again


class InputError(FinseekError, ValueError):
    """The user's input breaks a rule."""

    exit_code = 2


class ConfigError(InputError):
    """A config key, value or combination is wrong."""


class MissingPart(InputError):
    """An optional part is asked for and not installed.

    Args:
        what: the missing module or program.
        extra: the extra of this package that brings it.
        why: what needs it.
    """

    def __init__(self, what: str, extra: str, why: str) -> None:
        super().__init__(f"{why} needs {what}, which is not installed: pip install 'finseek[{extra}]'")


class ArtifactError(FinseekError):
    """An artifact is missing, altered, or not what its name says."""


class Note(UserWarning):
    """What the user should know though nothing is wrong, by :func:`warnings.warn`; a line on the command line."""
