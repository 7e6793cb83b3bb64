"""Find or fetch the folder of a model, named as a local folder or a hub repository.

Nothing is downloaded unless a repository is named. A repository in the local cache is used without any network request,
so that the vectors of an existing index do not change; `impart models get` fetches the newest files.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impart.errors import EncoderError, EncoderNotFoundError

__all__ = ["HF_FILES", "ONNX_FILES", "FileSet", "HubName", "fetch", "resolve"]

_HUB_NAME = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]*[A-Za-z0-9_-])(?P<folder>(?:/[\w.-]+)*)(?:@(?P<revision>[\w./-]+))?"
)


@dataclass(frozen=True, kw_only=True)
class HubName:
    """`org/name`, with `/folder` for a model inside the repository and `@revision` for a branch, tag or commit."""

    repo: str
    folder: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, name: str) -> HubName | None:
        """Parse a name; None where it cannot be a hub repository.

        >>> HubName.parse("openai/clip-vit-base-patch32@main")
        HubName(repo='openai/clip-vit-base-patch32', folder='', revision='main')
        >>> HubName.parse("/models/clip") is None
        True
        """
        match = _HUB_NAME.fullmatch(name)
        if match is None or ".." in name:
            return None
        return cls(repo=match["repo"], folder=match["folder"].strip("/"), revision=match["revision"])


@dataclass(frozen=True, kw_only=True)
class FileSet:
    """Files that make a model.

    Attributes:
        patterns: to download, relative to the model's folder.
        fallback: to download as well, where the folder is incomplete after `patterns`.
        complete: whether a folder has all files.
    """

    patterns: Sequence[str]
    fallback: Sequence[str] = ()
    complete: Callable[[Path], bool]


ONNX_FILES = FileSet(
    patterns=(
        "config.json",
        "README.md",
        "visual/preprocess_cfg.json",
        "visual/model.onnx*",
        "textual/model.onnx*",
        "textual/tokenizer.json",
        "textual/tokenizer_config.json",
        "textual/special_tokens_map.json",
    ),
    complete=lambda folder: all(
        (folder / name).is_file()
        for name in (
            "config.json",
            "visual/model.onnx",
            "visual/preprocess_cfg.json",
            "textual/model.onnx",
            "textual/tokenizer.json",
        )
    ),
)

HF_FILES = FileSet(
    patterns=("*.json", "*.txt", "*.model", "*.safetensors"),
    fallback=("pytorch_model*.bin",),
    complete=lambda folder: (folder / "config.json").is_file() and any(has_weights(folder)),
)


def has_weights(folder: Path) -> list[Path]:
    """List the weight files of a transformers model: safetensors, else pickles."""
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def resolve(name: str, files: FileSet) -> Path:
    """Return the folder of a model: a local folder, the cached copy of a repository, or a fresh download.

    Args:
        name: folder, or `org/name[/folder][@revision]` of a hub repository.
        files: of the model.

    Raises:
        EncoderNotFoundError: no folder and no repository has this name.
        EncoderError: the repository cannot be reached or fetched.
    """
    if not name:
        raise EncoderNotFoundError(
            "a model id needs a folder or a hub repository after the colon, as in 'onnx:my-model'"
        )
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    hub_name = HubName.parse(name)
    if hub_name is None:
        raise EncoderNotFoundError(
            f"there is no folder {name!r}, and it is not the name of a hub repository (org/name); check the path"
        )
    cached = _cached(hub_name, files)
    return cached if cached is not None else fetch(name, files)


def fetch(name: str, files: FileSet, *, into: Path | None = None) -> Path:
    """Download the model of a repository, and return its folder.

    Args:
        name: `org/name[/folder][@revision]`.
        files: of the model.
        into: target; None = the cache of the hub's library.

    Raises:
        EncoderNotFoundError: there is no such repository or revision.
        EncoderError: it cannot be reached, needs a login, was interrupted, or has no such model.
    """
    hub_name = HubName.parse(name)
    if hub_name is None:
        raise EncoderNotFoundError(f"{name!r} is not the name of a hub repository: write 'org/name'")
    folder = _snapshot(hub_name, files.patterns, into=into)
    if files.fallback and not files.complete(folder):
        folder = _snapshot(hub_name, files.fallback, into=into)
    if not files.complete(folder):
        raise EncoderError(
            f"hub repository {name!r} does not have the files of such a model ({', '.join(files.patterns)}); "
            "'onnx:' ids need the visual/ + textual/ layout, 'hf:' ids a transformers model"
        )
    return folder


def _cached(name: HubName, files: FileSet) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    for patterns in (files.patterns, [*files.patterns, *files.fallback]):
        try:
            root = snapshot_download(
                name.repo, revision=name.revision, local_files_only=True, **_selection(name, patterns)
            )
        except (OSError, HFValidationError):  # missing or incomplete (LocalEntryNotFoundError is an OSError)
            continue
        folder = Path(root) / name.folder
        if files.complete(folder):
            return folder
    return None


def _snapshot(name: HubName, patterns: Sequence[str], *, into: Path | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    options: dict[str, Any] = {} if into is None else {"local_dir": into}
    try:
        root = snapshot_download(name.repo, revision=name.revision, **_selection(name, patterns), **options)
    except Exception as error:  # of requests, httpx or httpx2, depending on the version
        raise _explained(name, error) from error
    return Path(root) / name.folder


def _selection(name: HubName, patterns: Sequence[str]) -> dict[str, list[str]]:
    """Restrict a download to the patterns in one folder.

    The hub's patterns match slashes too: `*.safetensors` would also match the copies in deeper folders.
    """
    prefix = f"{name.folder}/" if name.folder else ""
    depth = 1 + max(pattern.count("/") for pattern in patterns)
    return {
        "allow_patterns": [prefix + pattern for pattern in patterns],
        "ignore_patterns": [f"{prefix}{'*/' * depth}*"],
    }


def _explained(name: HubName, error: Exception) -> EncoderError:
    """Convert an error of the hub's library, with the remedy."""
    from huggingface_hub import errors

    what = f"{name.repo}@{name.revision}" if name.revision else name.repo
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        return EncoderError(f"hub repository {what!r} is gated: accept its terms on its page and run 'hf auth login'")
    if isinstance(error, errors.RepositoryNotFoundError):
        return EncoderNotFoundError(
            f"there is no folder and no hub repository {what!r} (or it is private: run 'hf auth login'); check the name"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return EncoderNotFoundError(f"hub repository {name.repo!r} has no revision {name.revision!r}; check its name")
    return EncoderError(
        f"hub repository {what!r} could not be fetched: {reason}. Check the network (or HF_ENDPOINT and "
        "HF_HUB_OFFLINE) and try again; complete files are kept. Without a network, use the path of a local "
        "folder instead"
    )
