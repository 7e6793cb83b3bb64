"""Damage of single kinds that once ended the decoder, or was reported without a reason."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from helpers import clips
from helpers.photos import write_animation, write_photo
from impart.config import DecodeSettings
from impart.errors import DecodeError
from impart.video.decode.decoder import Decoder
from impart.video.decode.sampler import DecodeFailed, DecodeFinished, sample_video


def reasons(*paths: Path) -> list[str]:
    with Decoder(DecodeSettings(), short_side_px=64) as decoder:
        ends = [item for item in decoder.decode(paths) if isinstance(item, DecodeFailed | DecodeFinished)]
    assert [end.path for end in ends] == list(paths)
    return [item.reason if isinstance(item, DecodeFailed) else "" for item in ends]


def test_an_image_that_declares_a_huge_size_costs_one_file(tmp_path):
    bomb = write_animation(tmp_path / "bomb.gif")
    data = bytearray(bomb.read_bytes())
    data[6:10] = b"\xff\x7f\xff\x7f"  # 32,767 x 32,767 pixels
    bomb.write_bytes(data)
    whole = write_animation(tmp_path / "whole.gif")
    reason, none = reasons(bomb, whole)
    assert reason.startswith("over the limit of ")
    assert none == ""


def test_a_damaged_animation_is_named_without_its_path(tmp_path):
    path = write_animation(tmp_path / "a.webp")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"VP8")
    data[at + 12 : at + 40] = bytes(28)
    path.write_bytes(data)
    (reason,) = reasons(path)
    assert reason.startswith("cannot be decoded: ")
    assert str(tmp_path) not in reason
    assert "Error:" not in reason


def test_a_damaged_avif_photo_is_no_readable_image(tmp_path):
    path = write_photo(tmp_path / "a.avif")
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + 4
    data[at + 10 :] = bytes(b ^ 0x55 for b in data[at + 10 :])
    path.write_bytes(data)
    (reason,) = reasons(path)
    assert reason.startswith("not a readable image: ")


def test_damage_that_ffmpeg_reports_as_an_error_of_the_disk_is_damage_where_the_disk_can_be_read(tmp_path, monkeypatch):
    path = clips.write_clip(tmp_path / "a.mp4", seconds_each=0.2)

    def fails(*_: object, **__: object) -> None:
        raise av.error.FFmpegError(5, "Input/output error", str(path))

    monkeypatch.setattr(av, "open", fails)
    with pytest.raises(DecodeError, match="damaged from its first bytes on") as raised:
        list(sample_video(path, settings=DecodeSettings(), short_side_px=64))
    assert raised.value.lasting
