"""The token of a server that other machines can reach: in the header `Authorization`, or in a cookie of the page.

Images, media elements and event streams of a browser cannot send a header. The page therefore asks for the token once,
and a cookie stands for it: a keyed digest, so that the cookie does not tell the token.
"""

from __future__ import annotations

import hmac
import html
from collections import OrderedDict
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from impart.files import sha256_hex
from impart.serve.problems import Problem, problem_response
from impart.serve.safety.rates import MOST_CLIENTS, Buckets, client_of, too_many

__all__ = ["TokenGuard"]

_OPEN_PATHS: Final = frozenset({"/health"})
_COOKIE_S: Final = 30 * 24 * 3600
_MOST_FORM_BYTES: Final = 4096
_WRONG_PER_S, _WRONG_BURST = 0.2, 10.0  # wrong tokens per client: ten at once, then one per 5 s
_FORM: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>IMPART: token</title><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"></head>
<body><main><h1>IMPART</h1>
<form method="post" action="{action}">
<p><label for="token">Token of this server</label></p>
<p><input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Open</button></p>
<p role="alert">{message}</p>
<p>It is the line in the file that was given to <code>impart serve --token-file</code>.</p>
</form></main></body></html>
"""


class TokenGuard:
    """Passes on only the requests that carry the token.

    A client that tries many different tokens must wait, also with the right one. A wrong one that is repeated, as by a
    page with an old cookie, counts once.

    Args:
        app: what is guarded.
        token: the secret.
        port: of the server; browsers share cookies among all ports of a host.
    """

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._cookie = hmac.new(self._token, b"impart cookie 1", "sha256").hexdigest().encode()
        self._name = f"impart_token_{port}"
        self._wrong = Buckets(per_s=_WRONG_PER_S, burst=_WRONG_BURST)
        self._last_wrong: OrderedDict[str, str] = OrderedDict()  # client -> digest of its last wrong token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 429, show the form, or pass the request on."""
        if scope["type"] != "http" or scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            answer = await self._page(request) if scope["path"] == "/" else self._answer(self._check_request(request))
        except ClientDisconnect:
            return
        await (answer or self._app)(scope, receive, send)

    @staticmethod
    def _answer(problem: Problem | None) -> Response | None:
        return None if problem is None else problem_response(problem)

    async def _page(self, request: Request) -> Response | None:
        """Answer a request for the page; None where it is passed on."""
        client = client_of(request.scope)
        if request.method == "POST":
            given = await _form_token(request)
        else:
            given = request.query_params.get("token")
        if given is not None:
            problem = self._check(client, given.encode("utf-8", "replace"), self._token)
            return self._welcome(request) if problem is None else self._form(request, problem)
        problem = self._check_request(request)
        return None if problem is None else self._form(request, problem)

    def _check_request(self, request: Request) -> Problem | None:
        """Check the header, or where there is none, the cookie."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        cookie = request.cookies.get(self._name)
        if scheme.casefold() == "bearer":
            return self._check(client_of(request.scope), token.strip().encode("latin-1"), self._token)
        if cookie is not None:
            return self._check(client_of(request.scope), cookie.encode("utf-8", "replace"), self._cookie)
        return _refused("missing_token", "this server needs its token: Authorization: Bearer TOKEN")

    def _check(self, client: str, given: bytes, expected: bytes) -> Problem | None:
        """Compare what a client gave; the time it takes does not tell where the bytes differ."""
        digest = sha256_hex(given)
        repeated = self._last_wrong.get(client) == digest
        if not repeated and (wait_s := self._wrong.wait_s(client)):
            return too_many("too_many_tokens", "too many wrong tokens from this client", wait_s)
        if hmac.compare_digest(given, expected):
            return None
        if not repeated:
            self._wrong.take(client)
            self._last_wrong.pop(client, None)
            self._last_wrong[client] = digest
            if len(self._last_wrong) > MOST_CLIENTS:
                self._last_wrong.popitem(last=False)
        return _refused("wrong_token", "this is not the token of this server")

    def _welcome(self, request: Request) -> Response:
        """Set the cookie, and go to the address without the token."""
        answer = RedirectResponse(_address(request), 303)
        secure = request.url.scheme == "https"
        value = self._cookie.decode()
        answer.set_cookie(self._name, value, max_age=_COOKIE_S, httponly=True, samesite="strict", secure=secure)
        return answer

    def _form(self, request: Request, problem: Problem) -> Response:
        """Show the form, and delete a cookie that is wrong."""
        message = "" if problem.code == "missing_token" else html.escape(problem.detail)
        text = _FORM.format(action=html.escape(_address(request)), message=message)
        answer = HTMLResponse(text, problem.status, headers=problem.headers)
        if problem.code == "wrong_token" and self._name in request.cookies:
            answer.delete_cookie(self._name, httponly=True, samesite="strict")
        return answer


def _refused(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": 'Bearer realm="IMPART"'})


def _address(request: Request) -> str:
    """Return the address of the page with its query, without the token."""
    query = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "token"])
    return f"/?{query}" if query else "/"


async def _form_token(request: Request) -> str | None:
    """Read the token of the form; None where it has none."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_FORM_BYTES:
            return ""
    return dict(parse_qsl(body.decode("utf-8", "replace"))).get("token")
