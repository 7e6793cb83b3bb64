"""Routes that the page asks for and this server does not have yet, in their simplest form.

`add_missing(app)` adds those of them that the application lacks. Once it has all, this module and its call go.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from typing import Any

import av
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from PIL import Image

from impart.serve.app import API
from impart.serve.schemas.search import HitOut, SearchRequest

_IMAGES: dict[str, bytes] = {}


def add_missing(app: FastAPI) -> None:
    """Add the routes that `app` lacks."""
    service = app.state.service
    known = set(app.openapi()["paths"])

    def missing(path: str) -> bool:
        return API + path not in known

    async def frame(video_id: str, t: float = 0, w: int = 320) -> Response:
        record = service.record(video_id)
        image = Image.open(record.path) if record.kind == "photo" else _decode(str(record.path), t)
        image = image.convert("RGB")
        image.thumbnail((w, w))
        return _webp(image)

    async def media(video_id: str) -> Response:
        return FileResponse(service.record(video_id).path)

    async def image(image_id: str) -> Response:
        picked = Image.open(io.BytesIO(_IMAGES[image_id])).convert("RGB")
        picked.thumbnail((320, 320))
        return _webp(picked)

    async def heat(request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        ids = body.pop("video_ids")
        hits = {hit.video_id: hit for hit in service.index.search(text=body.get("text") or "red", top=100)}
        videos = []
        for video_id in ids:
            hit, length = hits.get(video_id), service.record(video_id).duration_s
            peaks = [hit, *hit.moments] if hit else []
            step = max(0.25, length / 200)
            bins = [
                max((math.exp(-(((i * step - p.best_s) / 1.5) ** 2)) for p in peaks), default=0.0)
                for i in range(int(length / step) + 1)
            ]
            videos.append({"video_id": video_id, "start_s": 0.0, "step_s": step, "bins": bins})
        return JSONResponse({"heats": videos})

    async def by_image(request: Request) -> Response | None:
        form = await request.form()
        uploaded = form["image"]
        data = await uploaded.read()  # type: ignore[union-attr]
        image_id = f"image{len(_IMAGES)}"
        _IMAGES[image_id] = data
        asked = SearchRequest(**json.loads(str(form["request"])))
        hits = service.index.search(
            image=Image.open(io.BytesIO(data)), text=asked.text, top=asked.limit, group=asked.group
        )
        listed = [HitOut.of(hit).model_dump() for hit in hits]
        return JSONResponse(
            {"hits": listed, "next_cursor": None, "strong": 0, "took_ms": 1.0, "image_id": image_id, "names": []}
        )

    if missing("/frames/{video_id}.webp"):
        app.add_api_route(f"{API}/frames/{{video_id}}.webp", frame)
    if missing("/media/{video_id}"):
        app.add_api_route(f"{API}/media/{{video_id}}", media, methods=["GET", "HEAD"])
    if missing("/images/{image_id}.webp"):
        app.add_api_route(f"{API}/images/{{image_id}}.webp", image)
        app.add_middleware(_Multipart, route=by_image)
    if missing("/search/heat"):
        app.add_api_route(f"{API}/search/heat", heat, methods=["POST"], response_model=None)
    if missing("/names"):
        app.add_api_route(f"{API}/names", lambda: {"names": []})
    if missing("/index"):
        app.add_api_route(f"{API}/index", lambda: {"name": service.index.path.name})
    if missing("/folders"):
        app.add_api_route(f"{API}/folders", lambda: {"folders": []})


class _Multipart:
    """Hand `POST /search` with a form to a route of its own."""

    def __init__(self, app: Any, *, route: Any) -> None:
        self.app, self.route = app, route

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_form = (
            scope["type"] == "http"
            and scope["path"] == f"{API}/search"
            and any(b"multipart" in value for _, value in scope["headers"])
        )
        if not is_form:
            await self.app(scope, receive, send)
            return
        response = await self.route(Request(scope, receive))
        await response(scope, receive, send)


def _decode(path: str, time_s: float) -> Image.Image:
    with av.open(path) as container:
        container.seek(max(0, int(time_s * 1_000_000)))
        for decoded in container.decode(video=0):
            last = decoded
            if decoded.time is not None and decoded.time >= time_s:
                break
        return last.to_image()


def _webp(image: Image.Image) -> Response:
    written = io.BytesIO()
    image.save(written, "WEBP", quality=70)
    return Response(written.getvalue(), media_type="image/webp", headers={"Cache-Control": "max-age=3600"})


def add_missing_assets(page: Any) -> None:
    """Answer requests of a playwright page for assets that the package does not have yet."""
    from impart.serve.routes.page import WEB

    tray = "export class Tray { spans = []; add(span) { this.spans.push(span); } has() { return false; } mount() {} }"

    def answer(content: str, kind: str) -> Callable[[Any], None]:
        return lambda route: route.fulfill(body=content, content_type=kind)

    for name, content in {"css/panels.css": "", "css/tray.css": "", "js/tray.js": tray}.items():
        if not (WEB / name).exists():
            page.route(f"**/static/{name}", answer(content, "text/css" if name.endswith("css") else "text/javascript"))
