"""Colour: high dynamic range and wide gamut to the range and primaries that encoders are trained on.

An encoder has been trained on SDR images. The values of a PQ or HLG frame, taken as SDR, look grey and pale. Here they
become what a broadcaster's SDR version has (ITU-R BT.2408): diffuse white at 203 cd/m2 becomes SDR white, brighter
light is limited to it in its own hue, primaries become those of BT.709, and the result is coded for an SDR display of
gamma 2.4 (BT.1886). Sources: SMPTE ST 2084 (PQ), ITU-R BT.2100 (HLG, with the display gamma 1.2 of 1,000 cd/m2).

This is computed on the small image, with a table per transfer function. swscale converts as well, but builds a table
of its own for each reformatter, which takes seconds.

| declared | treated as |
| --- | --- |
| transfer PQ, HLG | converted, also as base layer of HDR10+ and Dolby Vision |
| transfer linear, log 100:1, log 316:1 | converted; 1.0 is white |
| primaries BT.2020, P3 with an SDR transfer | converted to BT.709 |
| other transfers (BT.709, BT.601, sRGB, gamma 2.2, 2.8) and primaries | as they are: players show them alike |
| alpha | laid on black, as players show it; of animated images (GIF, APNG, WebP) on white, as images are |
| no matrix | BT.2020 with PQ, HLG or BT.2020 primaries; BT.709 from 1,280 x 577 on; BT.601 below |
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

from impart.video.decode.frames.side_data import side_data

__all__ = ["colour_problem", "ground_of", "has_alpha", "is_converted", "matrix_of", "to_sdr"]

Floats = npt.NDArray[np.float32]

WHITE_CD_M2 = 203.0  # diffuse white of PQ and HLG (BT.2408)
SDR_GAMMA = 2.4  # of an SDR display (BT.1886)
HLG_PEAK_CD_M2, HLG_GAMMA = 1000.0, 1.2
SWSCALE_WHITE = 65_280  # swscale makes 16-bit RGB of YUV in steps of 256: white is 255 steps, not 65,535
STEPS = 1 << 14
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)
HD_WIDTH, SD_HEIGHT = 1280, 576  # where no matrix is declared: BT.709 from HD_WIDTH on, or above SD_HEIGHT
UNSPECIFIED = 2
ANIMATED_IMAGES = frozenset({"gif", "apng", "webp"})  # codecs of images that a page shows
ICTCP, IPT_C2 = 14, 15  # matrices that swscale does not have

# Linear RGB of these primaries to linear RGB of BT.709, both with white D65.
TO_BT709 = {
    ColorPrimaries.BT2020: (
        (1.660491, -0.587641, -0.072850),
        (-0.124550, 1.132900, -0.008349),
        (-0.018151, -0.100579, 1.118730),
    ),
    ColorPrimaries.SMPTE432: (
        (1.224940, -0.224940, 0.0),
        (-0.042057, 1.042057, 0.0),
        (-0.019638, -0.078636, 1.098274),
    ),
}
TO_BT709[ColorPrimaries.SMPTE431] = TO_BT709[ColorPrimaries.SMPTE432]  # P3 with the white of a cinema


def _pq(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = signal ** (1 / m2)
    light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)  # 1.0 is 10,000 cd/m2
    return np.asarray(light * 10_000 / WHITE_CD_M2)


def _hlg(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)  # light of the scene, 0..1


TO_LINEAR: dict[int, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    ColorTrc.SMPTE2084: _pq,
    ColorTrc.ARIB_STD_B67: _hlg,
    ColorTrc.LINEAR: lambda signal: signal,
    ColorTrc.LOG: lambda signal: np.where(signal > 0, 10 ** (2 * (signal - 1)), 0),
    ColorTrc.LOG_SQRT: lambda signal: np.where(signal > 0, 10 ** (2.5 * (signal - 1)), 0),
}


def is_converted(frame: av.VideoFrame) -> bool:
    """Whether `to_sdr` changes images of this frame."""
    return frame.color_trc in TO_LINEAR or frame.color_primaries in TO_BT709


def to_sdr(image: npt.NDArray[np.uint16], *, transfer: int, primaries: int) -> npt.NDArray[np.uint8]:
    """Convert an RGB image to BT.709 primaries and SDR.

    Args:
        image: uint16 (h, w, 3), coded with `transfer`, white at SWSCALE_WHITE.
        transfer, primaries: as FFmpeg numbers them; unknown ones are taken as SDR and BT.709.

    Returns:
        uint8 (h, w, 3).
    """
    light = _table(transfer if transfer in TO_LINEAR else UNSPECIFIED)[image]  # (h, w, 3)
    if transfer == ColorTrc.ARIB_STD_B67:
        luma = light @ LUMA_2020  # (h, w)
        light *= (HLG_PEAK_CD_M2 / WHITE_CD_M2) * luma[..., None] ** (HLG_GAMMA - 1)
    if primaries in TO_BT709:
        light = light @ np.array(TO_BT709[ColorPrimaries(primaries)], np.float32).T
    np.maximum(light, 0, out=light)
    brightest = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])  # (h, w)
    light /= np.maximum(brightest, 1)[..., None]  # brighter than white: as bright as white, in its own hue
    return _coded()[(np.sqrt(light) * (STEPS - 1) + 0.5).astype(np.uint16)]


@lru_cache(maxsize=8)
def _table(transfer: int) -> Floats:
    """Tabulate linear light over 16-bit values, float32 (65536,); 1.0 = SDR white (HLG: light of the scene)."""
    signal = np.minimum(np.arange(1 << 16) / SWSCALE_WHITE, 1)
    curve = TO_LINEAR.get(transfer)
    return (signal**SDR_GAMMA if curve is None else curve(signal)).astype(np.float32)


@lru_cache(maxsize=1)
def _coded() -> npt.NDArray[np.uint8]:
    """Tabulate SDR values over the square root of linear light 0..1, uint8 (STEPS,)."""
    root = np.arange(STEPS) / (STEPS - 1)
    return np.rint(root ** (2 / SDR_GAMMA) * 255).astype(np.uint8)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether a frame has transparent parts: its pixel format has an alpha component."""
    return any(component.is_alpha for component in frame.format.components)


def ground_of(codec: str) -> int:
    """Choose the grey level below transparent parts, 0 or 255.

    Args:
        codec: FFmpeg's canonical name.
    """
    return 255 if codec in ANIMATED_IMAGES else 0


def matrix_of(frame: av.VideoFrame) -> Colorspace | None:
    """Choose the colour matrix of a frame that declares none, as players do; None = the declared one."""
    if frame.colorspace != UNSPECIFIED:
        return None
    if frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67) or frame.color_primaries == ColorPrimaries.BT2020:
        return Colorspace.BT2020
    if frame.width >= HD_WIDTH or frame.height > SD_HEIGHT:
        return Colorspace.ITU709
    return Colorspace.ITU601


def colour_problem(frame: av.VideoFrame) -> str | None:
    """Name the reason why the colours of a frame are wrong, or None: Dolby Vision 5 and ICtCp are not converted."""
    kinds = {item.type for item in side_data(frame)}
    dolby = bool(kinds & {Type.DOVI_RPU_BUFFER, Type.DOVI_METADATA})
    if frame.colorspace == IPT_C2 or (dolby and frame.color_trc == UNSPECIFIED):
        return "its colours are wrong: Dolby Vision profile 5 has no base layer and cannot be converted"
    if frame.colorspace == ICTCP:
        return "its colours are wrong: ICtCp cannot be converted"
    return None
