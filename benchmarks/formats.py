"""Measure text-to-video retrieval on the same clips as progressive SDR, interlaced, HDR10 and HLG.

    python benchmarks/formats.py --data ../shared/data

The clips of `videos/panda` are converted into --work, or into a temporary folder:

- interlaced: two frames of the clip are the two fields of one frame of 720 x 576 (H.264, top field first);
- HDR10, HLG: every third frame, white at 203 cd/m2, primaries of BT.2020, 10 bit (HEVC).

Every caption is a query for its clip among all clips of one folder. In the row "mixed", every second clip is HDR10.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from itertools import islice, repeat
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from impart.evaluate import VideoSet, open_set
from impart.metrics.ranking import rank_figures
from impart.video.index.events import IndexDone
from impart.video.index.index import Query, VideoIndex

WHITE_CD_M2 = 203.0
WIDTH, HEIGHT = 720, 576
PLANES = (  # of yuv420p as one array of width WIDTH: first row, height, width
    (0, HEIGHT, WIDTH),
    (HEIGHT, HEIGHT // 2, WIDTH // 2),
    (HEIGHT * 5 // 4, HEIGHT // 2, WIDTH // 2),
)
BT709_TO_2020 = np.array(
    [[0.6274039, 0.3292830, 0.0433131], [0.0690973, 0.9195404, 0.0113623], [0.0163914, 0.0880133, 0.8955953]],
    np.float32,
)  # ITU-R BT.2087
STEPS = 1 << 14
X265 = "colorprim=bt2020:transfer={}:colormatrix=bt2020nc:log-level=error:pools=none:frame-threads=1"


def pq(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Code light in cd/m2 as SMPTE ST 2084."""
    power = (light / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(scene: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Code light of the scene, 0..1, as ITU-R BT.2100 HLG."""
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def coded(frame: av.VideoFrame, *, transfer: ColorTrc) -> av.VideoFrame:
    """Code an SDR frame as HDR, with BT.2020 primaries, yuv420p10le."""
    linear = ((np.arange(256) / 255) ** 2.4).astype(np.float32)  # 1.0 = white
    light = np.clip(linear[frame.to_ndarray(format="rgb24")] @ BT709_TO_2020.T, 0, 1)  # (h, w, 3)
    squares = (np.arange(STEPS) / (STEPS - 1)) ** 2
    if transfer == ColorTrc.SMPTE2084:
        table = pq(squares * WHITE_CD_M2)
    else:
        light *= WHITE_CD_M2 / 1000  # of a display of 1,000 cd/m2
        luma = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        light *= np.maximum(luma, 1e-6)[..., None] ** np.float32(1 / 1.2 - 1)
        table = hlg(squares)
    index = np.rint(np.sqrt(np.clip(light, 0, 1)) * (STEPS - 1)).astype(np.int32)
    rgb = np.rint(table * 65535).astype(np.uint16)[index]
    out = av.VideoFrame.from_ndarray(rgb, format="rgb48le").reformat(
        format="yuv420p10le", dst_colorspace=Colorspace.BT2020, dst_color_range=ColorRange.MPEG
    )
    out.color_trc, out.color_primaries = transfer, ColorPrimaries.BT2020
    return out


def interlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Weave every two frames to one of WIDTH x HEIGHT, top field first, also their chroma."""
    top = None
    for frame in frames:
        planes = frame.reformat(WIDTH, HEIGHT, "yuv420p").to_ndarray()  # (HEIGHT * 3 / 2, WIDTH)
        if top is None:
            top, first = planes, frame
            continue
        for start, height, width in PLANES:
            rows = slice(start, start + height * width // WIDTH)
            upper, lower = (image[rows].reshape(height, width) for image in (top, planes))
            upper[1::2] = lower[1::2]
        yield _timed(av.VideoFrame.from_ndarray(top, format="yuv420p"), first)
        top = None


def convert(source: Path, target: Path, kind: str) -> None:
    """Write a clip in another form; nothing where it exists."""
    if target.exists():
        return
    part = target.with_name(target.stem + ".part.mkv")
    with av.open(str(source)) as clip, av.open(str(part), "w") as out:
        video = clip.streams.video[0]
        video.thread_type = "AUTO"
        frames = clip.decode(video)
        if kind == "interlaced":
            size, pix_fmt, codec, rate = (WIDTH, HEIGHT), "yuv420p", "libx264", video.average_rate / 2
            options = {"preset": "veryfast", "crf": "18", "x264-params": "tff=1"}
            made = interlaced(frames)
        else:
            transfer = {"HDR10": ColorTrc.SMPTE2084, "HLG": ColorTrc.ARIB_STD_B67}[kind]
            size, pix_fmt, codec, rate = (video.width, video.height), "yuv420p10le", "libx265", video.average_rate / 3
            name = {"HDR10": "smpte2084", "HLG": "arib-std-b67"}[kind]
            options = {"preset": "ultrafast", "crf": "18", "x265-params": X265.format(name)}
            made = (_timed(coded(frame, transfer=transfer), frame) for frame in islice(frames, 0, None, 3))
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, 12_800)
        for frame in made:
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    part.replace(target)


def _timed(frame: av.VideoFrame, like: av.VideoFrame) -> av.VideoFrame:
    frame.pts, frame.time_base = like.pts, like.time_base
    return frame


def row(name: str, files: Sequence[Path], dataset: VideoSet, folder: Path) -> str:
    """Index files, search every caption, and format the figures."""
    index = VideoIndex.open(folder)
    for event in index.add(files):
        if isinstance(event, IndexDone):
            print(f"{name}: indexed {event.added}, failed {event.failed}, in part {event.partial}", flush=True)
    queries = [Query(text=text) for text in dataset.captions]
    cells = []
    for together in (False, True):
        found = index.search_many(queries, top=len(files), by="mean", augment=False, together=together)
        ranks = [
            next((hit.rank for hit in hits if Path(hit.path).stem == dataset.videos[owner].stem), len(files) + 1)
            for owner, hits in zip(dataset.owners, found, strict=True)
        ]
        figures = rank_figures(np.asarray(ranks))
        cells += [f"{100 * figures[metric]:.1f}" for metric in ("R@1", "R@5")]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, help="folder to keep the converted clips and the indexes in")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    dataset = open_set(options.data / "videos" / "panda" / "captions.csv", kind="videos")
    clips = list(dataset.videos)
    with tempfile.TemporaryDirectory() as scratch:
        work: Path = options.work or Path(scratch)
        files = {"progressive, SDR": clips}
        for kind in ("interlaced", "HDR10", "HLG"):
            (work / kind).mkdir(parents=True, exist_ok=True)
            files[kind] = [work / kind / f"{clip.stem}.mkv" for clip in clips]
            with ProcessPoolExecutor(os.cpu_count()) as pool:
                run: Callable[..., Iterator[None]] = pool.map
                list(run(convert, clips, files[kind], repeat(kind)))
        files["mixed"] = [
            hdr if number % 2 else clip for number, (clip, hdr) in enumerate(zip(clips, files["HDR10"], strict=True))
        ]
        lines = [
            f"{len(clips)} clips, {len(dataset.captions)} captions, `mini` without a reference set, videos ranked by "
            "the mean of their frames. R@K in %; captions asked alone, or all in one search (`--together`).",
            "",
            "| form | R@1 asked alone | R@5 alone | R@1 together | R@5 together |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for name, chosen in files.items():
            folder = work / f"{name.split(',')[0]}.impart"
            lines.append(row(name, chosen, dataset, folder))
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
