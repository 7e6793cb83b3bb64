"""HDR and wide gamut become SDR; a matrix that is not declared follows the size; what cannot be converted is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorPrimaries, ColorTrc

from helpers import clips
from impart.config import DecodeSettings
from impart.video.decode.decoder import Decoder
from impart.video.decode.frames import colour
from impart.video.decode.sampler import DecodedSegment, DecodeFinished, sample_video

# sRGB primaries to BT.2020, linear (ITU-R BT.2087).
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
PATCHES = np.array([[200, 60, 30], [40, 160, 70], [30, 60, 200], [128, 128, 128], [250, 250, 250], [90, 60, 40]])


def light_of(rgb: np.ndarray) -> np.ndarray:
    """Light of an SDR display in cd/m2 with white at 203, BT.2020 primaries; (..., 3)."""
    return (rgb / 255) ** 2.4 @ TO_2020.T * 203


def pq(light: np.ndarray) -> np.ndarray:
    """Code light as SMPTE ST 2084."""
    power = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light: np.ndarray) -> np.ndarray:
    """Code light as ITU-R BT.2100 HLG for a display of 1,000 cd/m2."""
    luma = light @ [0.2627, 0.6780, 0.0593] / 1000
    scene = light / 1000 * np.maximum(luma, 1e-9)[..., None] ** (1 / 1.2 - 1)
    low, high = np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, low, high)


def patches_image() -> np.ndarray:
    return np.repeat(np.repeat(PATCHES[None], 128, 0), 32, 1).astype(float)  # (128, 192, 3)


def write(path: Path, signal: np.ndarray, *, transfer: int, primaries: int = 9, matrix: int = 9) -> Path:
    """Write RGB of 0..1, as 10-bit 4:4:4 without loss."""
    rgb = np.rint(np.clip(signal, 0, 1) * 65535).astype(np.uint16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = rgb.shape[1], rgb.shape[0], "yuv444p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = (
            transfer,
            primaries,
            matrix,
            1,
        )
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb48le")
        frame = frame.reformat(format="yuv444p10le", dst_colorspace=min(matrix, 9), dst_color_range=1)
        frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, primaries, matrix, 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shown(path: Path, **settings: object) -> np.ndarray:
    """The decoded colour of each patch, (6, 3)."""
    first = next(
        iter(sample_video(path, settings=DecodeSettings(fit="crop", reuse_threshold=0, **settings), short_side_px=64))
    )
    assert isinstance(first, DecodedSegment)
    return first.image[32, 8::16].astype(float)


@pytest.mark.parametrize(("transfer", "code"), [(ColorTrc.SMPTE2084, pq), (ColorTrc.ARIB_STD_B67, hlg)])
def test_hdr_shows_the_colours_of_the_sdr_version(tmp_path, transfer, code):
    path = write(tmp_path / "hdr.mkv", code(light_of(patches_image())), transfer=transfer)
    assert np.abs(shown(path) - PATCHES).max() <= 4


@pytest.mark.parametrize("transfer", [ColorTrc.BT2020_10, ColorTrc.BT709])
def test_wide_gamut_is_converted(tmp_path, transfer):
    signal = (light_of(patches_image()) / 203) ** (1 / 2.4)
    assert np.abs(shown(write(tmp_path / "wide.mkv", signal, transfer=transfer)) - PATCHES).max() <= 6


def test_linear_light_is_coded(tmp_path):
    path = write(tmp_path / "linear.mkv", (patches_image() / 255) ** 2.4, transfer=8, primaries=1, matrix=1)
    assert np.abs(shown(path) - PATCHES)[3:5].max() <= 6


def test_highlights_keep_their_hue():
    bright = np.rint(pq(np.array([[[800.0, 400.0, 200.0]]])) * colour.SWSCALE_WHITE).astype(np.uint16)
    rgb = colour.to_sdr(bright, transfer=ColorTrc.SMPTE2084, primaries=ColorPrimaries.BT709)[0, 0]
    assert rgb[0] == 255
    assert rgb[1] == pytest.approx(255 * 0.5 ** (1 / 2.4), abs=2)


def test_hdr_of_a_long_strip(tmp_path):
    light = light_of(np.full((64, 640, 3), 128.0))
    first = next(
        iter(
            sample_video(
                write(tmp_path / "strip.mkv", pq(light), transfer=16), settings=DecodeSettings(), short_side_px=64
            )
        )
    )
    assert isinstance(first, DecodedSegment)
    assert np.abs(first.image.astype(float) - 128).max() <= 4


@pytest.mark.parametrize(
    ("size", "declared", "matrix"),
    [((640, 360), (2, 2, 2), 5), ((1280, 720), (2, 2, 2), 1), ((720, 1280), (2, 2, 2), 1), ((640, 360), (2, 16, 9), 9)],
)
def test_a_matrix_that_is_not_declared(size, declared, matrix):
    frame = av.VideoFrame(*size, "yuv420p")
    frame.colorspace, frame.color_trc, frame.color_primaries = declared
    assert colour.matrix_of(frame) == matrix
    frame.colorspace = 1
    assert colour.matrix_of(frame) is None


def test_colours_that_cannot_be_converted_are_named(monkeypatch):
    frame = av.VideoFrame(64, 64, "yuv420p10le")
    frame.colorspace = frame.color_trc = 2
    assert colour.colour_problem(frame) is None
    monkeypatch.setattr(colour, "side_data", lambda _: [SimpleNamespace(type=Type.DOVI_METADATA)])
    assert "Dolby Vision profile 5" in str(colour.colour_problem(frame))
    frame.color_trc = ColorTrc.ARIB_STD_B67  # profile 8.4 of phones: an HLG base layer
    assert colour.colour_problem(frame) is None


@pytest.mark.parametrize(("matrix", "words"), [(9, []), (14, ["ICtCp"]), (15, ["Dolby Vision profile 5"])])
def test_a_video_with_such_colours_has_a_note(tmp_path, matrix, words):
    path = write(tmp_path / "a.mkv", pq(light_of(patches_image())), transfer=ColorTrc.SMPTE2084, matrix=matrix)
    with Decoder(DecodeSettings(), short_side_px=64) as decoder:
        *_, finished = decoder.decode([path])
    assert isinstance(finished, DecodeFinished)
    assert finished.problem is None
    assert len(finished.notes) == len(words)
    assert all(word in note for word, note in zip(words, finished.notes, strict=True))


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt", "ground"),
    [
        (".mov", "png", "rgba", 0),
        (".mov", "qtrle", "argb", 0),
        (".mkv", "ffv1", "yuva444p", 0),
        (".apng", "apng", "rgba", 255),
    ],
)
@pytest.mark.parametrize("stored", [0, 255])
def test_transparent_parts(tmp_path, suffix, codec, pix_fmt, ground, stored):
    rgba = np.full((64, 64, 4), (stored, stored, stored, 0), np.uint8)
    rgba[16:48, 16:48] = (*clips.COLOURS["red"], 255)
    path = tmp_path / f"clear{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pix_fmt
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        container.mux(stream.encode(None))
    first = next(iter(sample_video(path, settings=DecodeSettings(), short_side_px=64)))
    assert isinstance(first, DecodedSegment)
    assert first.image[4, 4].tolist() == [ground] * 3
    assert np.abs(first.image[32, 32].astype(int) - clips.COLOURS["red"]).max() <= 4
