"""Requests to a server: tokens, retries, and problems as the errors of the library."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from impart.config import DEFAULT_PORT
from impart.errors import (
    ConfigError,
    DataError,
    DecodeError,
    EncoderMismatchError,
    ImpartError,
    IndexLockedError,
    QueryError,
    ReferenceSetError,
    VideoIndexError,
)

if TYPE_CHECKING:
    import httpx2

__all__ = ["Transport", "error_of"]

_API = "/api/v1"
_BUSY = (429, 503)
_LONGEST_WAIT_S = 30.0  # between two tries
_DEFAULT_WAIT_S = 1.0  # where the server names none

_KINDS: dict[str, type[ImpartError]] = {
    "index_locked": IndexLockedError,
    "encoder_mismatch": EncoderMismatchError,
    "bad_query": QueryError,
    "bad_cursor": QueryError,
    "invalid_request": QueryError,
    "video_not_found": QueryError,
    "name_not_found": QueryError,
    "name_taken": QueryError,
    "image_not_found": QueryError,
    "folder_not_found": QueryError,
    "time_outside": QueryError,
    "bad_value": ConfigError,
    "read_only": ConfigError,
    "cannot_decode": DecodeError,
    "bad_data": DataError,
    "not_an_image": DataError,
    "too_many_pixels": DataError,
    "reference_set_not_found": ReferenceSetError,
    "failed": ImpartError,
    "missing_extra": ImpartError,
}
"""Code of a problem -> class of the error."""
_BY_STATUS: dict[int, type[ImpartError]] = {401: ConfigError, 403: ConfigError, 413: DataError, 415: DataError}
"""Status -> class of the error, for codes that are not in `_KINDS`."""


class Transport:
    """Sends requests to one server, and waits where it is busy.

    Args:
        address: of the server.
        token: of the server; None = it needs none.
        timeout_s: for each answer, and for all waiting where the server is busy.
        tries: of a request that the server refuses since it is busy.

    Raises:
        ConfigError: the address is none of HTTP.
    """

    def __init__(self, address: str, *, token: str | None, timeout_s: float, tries: int) -> None:
        import httpx2

        parts = urlsplit(address if "://" in address else f"http://{address}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{address!r} is no address of a server: write it as http://127.0.0.1:{DEFAULT_PORT}")
        if timeout_s <= 0 or tries < 1:
            raise ConfigError(f"timeout_s is {timeout_s:g} and tries {tries}: give more than 0 seconds, and 1 or more")
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._timeout_s, self._tries = timeout_s, tries
        self._http = httpx2.Client(
            base_url=self.address + parts.path.rstrip("/") + _API,
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            timeout=timeout_s,
            trust_env=not _is_loopback(parts.hostname),  # a proxy cannot reach this machine
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def json(self, method: str, path: str, **request: Any) -> Any:
        """Send a request and return the JSON of the answer.

        Args:
            method: of HTTP.
            path: below the API.
            request: `params`, `json`, `data`, `files` of httpx2.

        Raises:
            ImpartError: the server refuses it, cannot be reached, or is none of this kind.
        """
        answer = self._sent(lambda: self._http.request(method, path, **request))
        try:
            return answer.json()
        except ValueError as error:
            raise VideoIndexError(f"{self.address} is no server of IMPART: it answered no JSON") from error

    def save(self, path: str, write: Callable[[Iterator[bytes]], None]) -> None:
        """Fetch a file, piece by piece.

        Raises:
            ImpartError: as `json` does.
        """
        with self.stream(path) as answer:
            write(answer.iter_bytes())

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, read_s: float | None = None
    ) -> Iterator[httpx2.Response]:
        """Open an answer that is read while it arrives.

        Args:
            headers: of the request.
            read_s: longest silence; None = the time-out of the client.

        Raises:
            ImpartError: as `json` does; also while the answer is read.
        """
        import httpx2

        timeout = httpx2.Timeout(self._timeout_s, read=read_s or self._timeout_s)
        request = self._http.build_request("GET", path, headers=dict(headers or {}), timeout=timeout)
        answer = self._sent(lambda: self._http.send(request, stream=True))
        try:
            with self._errors():
                yield answer
        finally:
            answer.close()

    def _sent(self, send: Callable[[], httpx2.Response]) -> httpx2.Response:
        """Send a request, again where the server is busy."""
        deadline = time.monotonic() + self._timeout_s
        for left in range(self._tries - 1, -1, -1):
            with self._errors():
                answer = send()
                if answer.is_success:
                    return answer
                answer.read()
                answer.close()
            wait_s = _wait_s(answer.headers.get("retry-after"))
            if answer.status_code not in _BUSY or not left or time.monotonic() + wait_s > deadline:
                break
            time.sleep(wait_s)
        raise error_of(answer.status_code, _body(answer), address=self.address)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except httpx2.ConnectError as error:
            raise VideoIndexError(f"no server at {self.address}: start it with: impart serve ({error})") from error
        except httpx2.TimeoutException as error:
            raise VideoIndexError(
                f"the server at {self.address} did not answer within {self._timeout_s:g} s: try again, or give the "
                "client a longer timeout_s"
            ) from error
        except httpx2.HTTPError as error:
            raise VideoIndexError(f"the connection to {self.address} failed: {error}; try again") from error


def error_of(status: int, body: Any, *, address: str) -> ImpartError:
    """Make the error of a problem.

    Args:
        status: of HTTP.
        body: JSON of the answer; None = it has none.
        address: of the server, for messages.

    >>> error_of(409, {"code": "index_locked", "detail": "another process is writing"}, address="http://localhost")
    IndexLockedError('another process is writing')
    """
    if not isinstance(body, dict) or "code" not in body:
        return VideoIndexError(f"{address} is no server of IMPART, or failed: it answered {status}")
    code, detail = str(body["code"]), str(body.get("detail", ""))
    kind = _KINDS.get(code) or _BY_STATUS.get(status) or (QueryError if status < 429 else VideoIndexError)
    if status == 401:
        detail += " (token= of the client)"
    return kind(detail)


def _body(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _wait_s(retry_after: str | None) -> float:
    try:
        return min(max(float(retry_after or _DEFAULT_WAIT_S), 0.0), _LONGEST_WAIT_S)
    except ValueError:  # a date
        return _DEFAULT_WAIT_S


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
