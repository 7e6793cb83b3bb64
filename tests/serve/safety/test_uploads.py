"""Uploaded images: the limits hold before a pixel is decoded, and formats that need other programs are refused."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path

import pytest
from fastapi import UploadFile
from PIL import Image
from starlette.testclient import TestClient

from helpers.served import HERE, connect, png_bomb, read_answer, served
from impart.serve.app import create_app
from impart.serve.problems import Problem
from impart.serve.safety.uploads import check_image, read_upload, read_uploads
from impart.serve.settings import ServeSettings


def settings_of(**values: float) -> ServeSettings:
    return ServeSettings(index=Path("none.impart"), **values)  # type: ignore[arg-type]


def encoded(form: str, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(file, form)
    return file.getvalue()


def refused(data: bytes, **values: float) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        check_image(data, settings_of(**values))
    return caught.value.status, caught.value.code


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO"])
def test_images_are_taken(form: str) -> None:
    data = encoded(form)
    assert asyncio.run(read_upload(UploadFile(io.BytesIO(data), filename="../../x"), settings_of())) == data


@pytest.mark.parametrize("size", [(30_000, 30_000), (65_500, 65_500), (12_000, 12_000), (1_000_000, 101)])
def test_a_bomb_is_refused_at_once(size: tuple[int, int]) -> None:
    began = time.monotonic()
    assert refused(png_bomb(*size)) == (413, "too_many_pixels")
    assert time.monotonic() - began < 0.5


def test_the_limit_of_pixels_is_that_of_the_settings() -> None:
    assert refused(encoded("PNG", (101, 100)), upload_megapixels=0.01) == (413, "too_many_pixels")
    check_image(encoded("PNG", (100, 100)), settings_of(upload_megapixels=0.01))


def test_a_large_file_is_refused() -> None:
    data = encoded("PNG") + b"\0" * (1 << 20)
    assert refused(data, upload_mb=1) == (413, "too_large")
    with pytest.raises(Problem):
        asyncio.run(read_upload(UploadFile(io.BytesIO(data)), settings_of(upload_mb=1)))


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xc5\xd0\xd3\xc6" + b"\0" * 40, b"<svg/>",
     b"%PDF-1.7", b"....ftypisom", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF....WEBP", b"II*\0"],
)  # fmt: skip
def test_what_is_no_image_is_refused(data: bytes) -> None:
    assert refused(data) == (415, "not_an_image")


def test_too_many_images_are_refused() -> None:
    uploads = [UploadFile(io.BytesIO(encoded("PNG"))) for _ in range(3)]
    assert len(asyncio.run(read_uploads(uploads, settings_of(upload_images=3)))) == 3
    with pytest.raises(Problem) as caught:
        asyncio.run(read_uploads(uploads, settings_of(upload_images=2)))
    assert (caught.value.status, caught.value.code) == (413, "too_many_images")


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    """Client of an application with a route that takes images."""
    settings = ServeSettings(index=tmp_path / "none.impart", upload_images=3, upload_mb=1, request_mb=2)
    app = create_app(settings)

    @app.post("/api/v1/taken")
    async def taken(images: list[UploadFile]) -> list[int]:
        return [len(data) for data in await read_uploads(images, settings)]

    return TestClient(app, base_url=HERE)


def send(client: TestClient, *images: bytes) -> tuple[int, str]:
    answer = client.post("/api/v1/taken", files=[("images", ("a.png", data)) for data in images])
    return answer.status_code, "" if answer.is_success else answer.json()["code"]


def test_a_route_takes_and_refuses_images(client: TestClient) -> None:
    image = encoded("PNG")
    assert send(client, image, image) == (200, "")
    assert send(client, image, png_bomb(30_000, 30_000)) == (413, "too_many_pixels")
    assert send(client, image + b"\0" * (1 << 20)) == (413, "too_large")
    assert send(client, *[image] * 4) == (400, "bad_request")
    assert send(client, *[image + b"\0" * 900_000] * 3) == (413, "too_large")  # each is small enough
    assert send(client, b"text") == (415, "not_an_image")
    fields = {f"field {i}": "x" for i in range(30)}
    assert client.post("/api/v1/taken", files={"images": image}, data=fields).status_code == 400
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x", b"--x\r\n\r\n", b"nothing", b"--x--"):
        assert client.post("/api/v1/taken", content=body, headers=headers).status_code in (400, 422), body


def test_few_uploads_at_once(tmp_path: Path) -> None:
    settings = ServeSettings(index=tmp_path / "none.impart", port=0)
    with served(settings) as port:
        head = b"POST /api/v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n"
        head += b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        waiting = [connect(port) for _ in range(4)]
        for connection in waiting:
            connection.sendall(head)
        time.sleep(0.3)
        with connect(port) as connection:
            connection.sendall(head)
            assert read_answer(connection)[0] == 429
        for connection in waiting:
            connection.sendall(b"--x--\r\n\r\n")
            assert read_answer(connection)[0] in (400, 422)
            connection.close()
