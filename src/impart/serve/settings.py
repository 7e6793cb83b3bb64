"""Settings of the server: its address, the folders that it may read, and all limits with their defaults."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from impart.config import DEFAULT_HOST, DEFAULT_PORT, REQUESTS_PER_S, Device
from impart.errors import ConfigError
from impart.serve.jobs.settings import JobSettings

__all__ = ["EVERY_ADDRESS", "LOOPBACK_NAMES", "ServeSettings"]

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Hosts that mean all addresses of a machine -> the one by which the machine reaches itself."""

_LEAST_TOKEN = 16  # letters


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of one server.

    Attributes:
        index: folder of the video index.
        host, port: where it listens. A host that is not this machine alone needs a token.
        token: a secret that every request must carry; None = none is needed.
        hosts: further names under which the server may be addressed; such as that of a proxy.
        roots: folders that indexing jobs may read; empty = the folders of the videos in the index.
        refsets: reference sets, and folders of them, that may be put in force beside the model's own.
        device: of the model, in searches and in indexing jobs.
        read_only: refuse everything that changes the index or writes files.
        cache: folder of frames, previews, query images and exports; None = `serve/` in IMPART's cache folder.
        cache_mb: most megabytes of that folder.
        upload_mb, upload_megapixels: largest query image or image of a name.
        upload_images: images of a name that may be uploaded at once.
        request_mb: largest body of a form with images; the body of a JSON request has at most 1 MiB.
        body_s: seconds in which the headers, then the body of a request must arrive; a large body may take longer, at
            16 KiB a second.
        connections: connections that may be open at once.
        requests_per_s: most requests per client and second, in the mean; bursts may have ten times as many.
        waiting_searches: searches that may wait; more are refused with 429.
        jobs: limits of indexing jobs and exports.

    Raises:
        ConfigError: a value cannot work, or another host than this machine is asked for without a token.
    """

    index: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    token: str | None = None
    hosts: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    refsets: tuple[Path, ...] = ()
    device: Device = "auto"
    read_only: bool = False
    cache: Path | None = None
    cache_mb: int = 2048
    upload_mb: int = 25
    upload_megapixels: float = 100.0
    upload_images: int = 20
    request_mb: int = 100
    body_s: float = 20.0
    connections: int = 512
    requests_per_s: float = REQUESTS_PER_S
    waiting_searches: int = 256
    jobs: JobSettings = field(default_factory=JobSettings)

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < _LEAST_TOKEN:
            raise ConfigError(f"the token has {len(self.token)} letters: use at least {_LEAST_TOKEN}")
        if not self.host:
            raise ConfigError(f"the host is empty: listen on {DEFAULT_HOST}, or on every address with 0.0.0.0")
        if self.token is None and not self.is_local:
            raise ConfigError(
                f"the host {self.host} can be reached from other machines: give a token with --token-file FILE "
                f"(a file with one line of at least {_LEAST_TOKEN} letters), or listen on {DEFAULT_HOST}"
            )

    @property
    def cache_folder(self) -> Path:
        """Folder of what the server makes and may lose."""
        from impart.files import cache_folder

        return self.cache if self.cache is not None else cache_folder() / "serve"

    @property
    def is_local(self) -> bool:
        """Whether the server listens on this machine alone."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host in LOOPBACK_NAMES

    @property
    def address(self) -> str:
        """Address of the page on this machine."""
        host = EVERY_ADDRESS.get(self.host, self.host)
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"
