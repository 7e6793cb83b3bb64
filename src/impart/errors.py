"""Every error IMPART raises on purpose, as one tree.

    ImpartError
    ├── ConfigError            a setting has a value that cannot work
    ├── MissingExtraError      an optional dependency is needed and not installed
    ├── DataError              an image, a caption file or a data set cannot be read
    ├── EncoderError           a model cannot be loaded or run
    │   ├── EncoderNotFoundError
    │   └── EncoderMismatchError   an artefact was made with another encoder
    ├── ReferenceSetError      a reference set cannot be built, opened or joined
    ├── VideoIndexError        a video index cannot be opened or written
    │   └── IndexLockedError       another process is writing to it
    ├── DecodeError            a video cannot be decoded
    ├── TrainingError          a training run cannot start, go on or be resumed
    └── QueryError             a search query makes no sense

A message names the file or setting and says what to do about it. Causes are chained with ``raise ... from``.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "DecodeError",
    "EncoderError",
    "EncoderMismatchError",
    "EncoderNotFoundError",
    "ImpartError",
    "IndexLockedError",
    "MissingExtraError",
    "QueryError",
    "ReferenceSetError",
    "TrainingError",
    "VideoIndexError",
]


class ImpartError(Exception):
    """Root of all errors that IMPART raises on purpose."""


class ConfigError(ImpartError):
    """A setting has a value that cannot work."""


class MissingExtraError(ImpartError):
    """An optional dependency is needed and not installed.

    Args:
        package: what could not be imported.
        extra: the extra of this project that brings it.
        purpose: what it is needed for, as a noun phrase.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package!r}, which is not installed: pip install 'impart[{extra}]'")
        self.package = package
        self.extra = extra


class DataError(ImpartError):
    """An image, a caption file or a data set cannot be read."""


class EncoderError(ImpartError):
    """A model cannot be loaded or run."""


class EncoderNotFoundError(EncoderError):
    """No model answers to the id."""


class EncoderMismatchError(EncoderError):
    """An artefact (reference set, index) was made with another encoder than the one given."""


class ReferenceSetError(ImpartError):
    """A reference set cannot be built, opened or joined."""


class VideoIndexError(ImpartError):
    """A video index cannot be opened or written."""


class IndexLockedError(VideoIndexError):
    """Another process is writing to the index."""


class DecodeError(ImpartError):
    """A video cannot be decoded.

    Args:
        message: names the file and what is wrong with it.
        reason: what is wrong, without the file's name, for lists that show the name beside it.
    """

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = message if reason is None else reason


class TrainingError(ImpartError):
    """A training run cannot start, go on or be resumed."""


class QueryError(ImpartError):
    """A search query makes no sense."""
