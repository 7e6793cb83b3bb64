"""Every error that IMPART raises on purpose, as one tree, and the category of its warnings.

    ImpartError
    ├── ConfigError
    ├── MissingExtraError
    ├── DataError
    ├── EncoderError
    │   ├── EncoderNotFoundError
    │   └── EncoderMismatchError
    ├── ReferenceSetError
    ├── VideoIndexError
    │   └── IndexLockedError
    ├── DecodeError
    ├── ClusterError
    ├── TrainingError
    └── QueryError

A message names the file or the setting, and the remedy. Causes are chained with ``raise ... from``.
"""

from __future__ import annotations

__all__ = [
    "DISTRIBUTION",
    "ClusterError",
    "ConfigError",
    "DataError",
    "DecodeError",
    "EncoderError",
    "EncoderMismatchError",
    "EncoderNotFoundError",
    "ImpartError",
    "ImpartWarning",
    "IndexLockedError",
    "MissingExtraError",
    "QueryError",
    "ReferenceSetError",
    "TrainingError",
    "VideoIndexError",
    "install_command",
]

DISTRIBUTION = "impart-clip"
"""Name of the package for pip; the name `impart` belongs to another project on the package index."""


class ImpartError(Exception):
    """Root of all errors that IMPART raises on purpose.

    Example:
        >>> import impart
        >>> try:
        ...     impart.load_encoder("maxi")
        ... except impart.ImpartError as error:
        ...     print(type(error).__name__)
        EncoderNotFoundError
    """


class ConfigError(ImpartError):
    """Raised when a setting is unknown, or has a value that cannot work."""


def install_command(extra: str) -> str:
    """Return the command that installs an extra of this project, also where the package came from a checkout."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


class MissingExtraError(ImpartError):
    """Raised when an optional dependency is needed and not installed.

    Args:
        package: what could not be imported.
        extra: the extra of this project that installs it.
        purpose: what it is needed for, as a noun phrase.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package!r}, which is not installed: {install_command(extra)}")
        self.package = package
        self.extra = extra


class DataError(ImpartError):
    """Raised when an image, a caption file or a data set cannot be read."""


class EncoderError(ImpartError):
    """Raised when a model cannot be loaded, exported or run."""


class EncoderNotFoundError(EncoderError):
    """Raised when no model has the given id."""


class EncoderMismatchError(EncoderError):
    """Raised when an artefact (reference set, index, RAM) was made with another encoder than the given one."""


class ReferenceSetError(ImpartError):
    """Raised when a reference set cannot be built, opened or merged."""


class VideoIndexError(ImpartError):
    """Raised when a video index cannot be opened or written."""


class IndexLockedError(VideoIndexError):
    """Raised when another process is writing to the index."""


class DecodeError(ImpartError):
    """Raised when a video cannot be decoded.

    Args:
        message: names the file and what is wrong with it.
        reason: what is wrong, without the file's name, for lists that have the name in another column.
        lasting: whether the file itself is the cause. False where it could not be read (a disk that fails or is away,
            a missing permission): reading it later may succeed.
    """

    def __init__(self, message: str, *, reason: str | None = None, lasting: bool = True) -> None:
        super().__init__(message)
        self.reason = message if reason is None else reason
        self.lasting = lasting


class ClusterError(ImpartError):
    """Raised when workers on Ray cannot be started, or do not fit this machine."""


class TrainingError(ImpartError):
    """Raised when a training run cannot start, continue or be resumed."""


class QueryError(ImpartError):
    """Raised when a search query is empty or contradicts itself."""


class ImpartWarning(UserWarning):
    """Category of the warnings that IMPART issues: a result is right, but something is left out of it."""
