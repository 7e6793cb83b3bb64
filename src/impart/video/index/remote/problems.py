"""Problems of object storage in words: what is wrong, and the remedy."""

from __future__ import annotations

import os
import re
from pathlib import Path

from impart.video.index.remote.location import Location

__all__ = ["problem_of"]

_NO_BUCKET = re.compile(r"nosuchbucket|no_such_bucket|bucket does not exist|containernotfound", re.IGNORECASE)
_NO_CREDENTIALS = re.compile(r"credential|imds|169\.254\.169\.254|account must be specified|http status code: 0", re.I)
_DENIED = re.compile(
    r"access_?denied|forbidden|\b403\b|signature_?does_?not_?match|invalid_?access_?key|invalid_client_token|"
    r"expired_?token|unauthori[sz]ed|\b401\b|authentication",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"curlcode|network_connection|connect|timed? ?out|dns error|error sending request|refused|unreachable|reset|"
    r"broken pipe|end of file before|incomplete message|resolve|service_unavailable|\b50[0234]\b|slow_?down|"
    r"internal_failure|internalerror",
    re.IGNORECASE,
)
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def problem_of(error: BaseException | str, location: Location) -> str | None:
    """Describe an error of object storage; None where it is of another kind."""
    text = str(error)
    variables = _VARIABLES[location.scheme]
    if _NO_BUCKET.search(text):
        return f"there is no bucket {location.bucket!r}{_server(location)}: create it, or check its name"
    if _NO_CREDENTIALS.search(text) or (_DENIED.search(text) and not _has_credentials(location)):
        return f"there are no credentials for the bucket {location.bucket!r}: set {variables}"
    if _DENIED.search(text):
        return (
            f"access to the bucket {location.bucket!r} is denied{_server(location)}: check the credentials "
            f"({variables}) and that they may list, read, write and delete there"
        )
    if _NO_ANSWER.search(text):
        return (
            f"the server of the bucket {location.bucket!r} does not answer{_server(location)}: check the network"
            f"{' and AWS_ENDPOINT_URL' if location.scheme == 's3' else ''}, then give the same command again"
        )
    return None


def _has_credentials(location: Location) -> bool:
    """Whether a usual variable or file with credentials of S3 is there; assumed for the others."""
    names = (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    )
    files = (Path.home() / ".aws" / name for name in ("credentials", "config"))
    return location.scheme != "s3" or any(map(os.environ.get, names)) or any(file.is_file() for file in files)


def _server(location: Location) -> str:
    """Name the server in parentheses; empty for that of the provider."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return f" ({endpoint})" if endpoint and location.scheme == "s3" else ""
