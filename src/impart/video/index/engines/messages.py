"""Units that workers of `impart index` get, and the messages that they send back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from impart.encoders.base import ImageEmbeddings
from impart.video.decode.sampler import DecodeFailed, DecodeFinished
from impart.video.index.files.scan import FoundFile
from impart.video.index.video_buffer import Times

__all__ = ["FileBegan", "FileEnded", "Files", "FramesEncoded", "Message", "PhotoDecoded", "Photos", "PhotosEncoded"]


@dataclass(frozen=True)
class Files:
    """Unit: files to decode and encode, one after another; digests: of those that the plan has read."""

    files: tuple[FoundFile, ...]
    digests: tuple[str | None, ...]


@dataclass(frozen=True)
class Photos:
    """Unit: decoded photos to encode in one batch; `number` identifies the batch."""

    number: int
    images: tuple[npt.NDArray[np.uint8], ...]


@dataclass(frozen=True)
class FileBegan:
    """The first frame of a video is decoded, or its failure is known.

    Attributes:
        digest: of its content; empty = unreadable.
        failed: whether no frame of it can be decoded.
    """

    path: Path
    digest: str
    failed: bool = False


@dataclass(frozen=True)
class FramesEncoded:
    """A batch of b frames of a video.

    Attributes:
        thumbs: grey thumbnail of each frame.
        times: of each frame.
        made: embeddings, or None where the encoder failed; failure: its reason.
    """

    path: Path
    thumbs: tuple[npt.NDArray[np.uint8], ...]
    times: Times
    made: ImageEmbeddings | None
    failure: str = ""


@dataclass(frozen=True)
class PhotoDecoded:
    """A photo, which the driver gives out again in a batch with others."""

    path: Path
    digest: str
    image: npt.NDArray[np.uint8]
    times: Times
    item: DecodeFinished


@dataclass(frozen=True)
class FileEnded:
    """The end of a video; unseen: whether this machine sees no file at its path, or another one."""

    path: Path
    item: DecodeFinished | DecodeFailed
    unseen: bool = False


@dataclass(frozen=True)
class PhotosEncoded:
    """Embeddings of a batch of photos, or None where the encoder failed; failure: its reason."""

    number: int
    made: ImageEmbeddings | None
    failure: str = ""


Message: TypeAlias = FileBegan | FramesEncoded | PhotoDecoded | FileEnded | PhotosEncoded
