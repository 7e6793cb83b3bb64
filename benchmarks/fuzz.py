"""Decode damaged files in the product's decoder: count crashes, time-outs and memory.

    python benchmarks/fuzz.py [--files 10000] [--seed 1] [--kinds mp4 jpg] [--limit-s 20] [--keep DIR] [--out FILE]

Small videos and photos of all kinds are written (`ORIGINALS`) and changed by chance (`MUTATIONS`): flipped bits,
extreme numbers in headers, parts that are cut out, doubled, swapped, zeroed, random, or taken from a file of another
kind. The file with number n of a seed is always the same. `Decoder` decodes them in its worker process, as `impart
index` does, in runs of `RUN` files. Each file must end, as decoded or as failed with a reason; one that ends the worker
(a crash) or exceeds the limit of time is listed, and kept with `--keep`.

`--limit-s` is the time without output after which a file is given up (`DecodeSettings.stall_s`).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image

from impart.config import DecodeSettings
from impart.video.decode.decoder import Decoder
from impart.video.decode.sampler import DecodedSegment, DecodeFinished

SIDE_PX = 256
RUN = 200
"""Files of one call of `Decoder.decode`, which are on disk at the same time."""
HEAD = 4096
"""Bytes at either end of a file in which most containers have their headers and indexes."""
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFFE)

ENDS = ("decoded", "partly", "failed", "memory", "unnamed", "crash", "time-out")
FAULTS = ("unnamed", "crash", "time-out")
UNNAMED = re.compile(r"cannot be decoded: \w+: ")
"""An exception that no part of the decoder expects."""

VIDEOS: dict[str, tuple[str, str, dict[str, str]]] = {
    # kind -> suffix, codec, options of the encoder
    "mp4": ("mp4", "libx264", {"preset": "veryfast", "bf": "2"}),
    "mp4 hevc": ("mp4", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "mp4 av1": ("mp4", "libsvtav1", {"preset": "12", "svtav1-params": "enable-stat-report=0"}),
    "mov": ("mov", "libx264", {"preset": "veryfast"}),
    "mov prores": ("mov", "prores_ks", {}),
    "mov mjpeg": ("mov", "mjpeg", {}),
    "mov qtrle": ("mov", "qtrle", {}),
    "3gp": ("3gp", "mpeg4", {}),
    "mkv": ("mkv", "libx264", {"preset": "veryfast", "bf": "3"}),
    "mkv ffv1": ("mkv", "ffv1", {}),
    "mkv snow": ("mkv", "snow", {"strict": "-2"}),
    "webm": ("webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    "webm vp9": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "avi": ("avi", "mpeg4", {"bf": "2"}),
    "avi msmpeg4": ("avi", "msmpeg4", {}),
    "avi huffyuv": ("avi", "huffyuv", {}),
    "avi cinepak": ("avi", "cinepak", {}),
    "ts": ("ts", "libx264", {"preset": "veryfast", "bf": "2"}),
    "ts hevc": ("ts", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "ts mpeg2": ("ts", "mpeg2video", {}),
    "mpg": ("mpg", "mpeg1video", {}),
    "flv": ("flv", "flv", {}),
    "flv h264": ("flv", "libx264", {"preset": "veryfast"}),
    "wmv": ("wmv", "wmv2", {}),
    "gif": ("gif", "gif", {}),
    "ogg": ("ogg", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    "nut": ("nut", "mpeg4", {}),
    "apng": ("apng", "apng", {}),
    "h264": ("h264", "libx264", {"preset": "veryfast"}),
}
PHOTOS = ("jpg", "png", "heic", "avif", "webp", "tiff", "bmp", "gif", "jp2", "tga", "ppm", "ico", "psd")


@dataclass
class Outcome:
    """Results of the files.

    Attributes:
        ends: counts by `ENDS`.
        reasons: counts of the reasons of failed files, without numbers.
        times_s: of each file, between the end of the file before and its own.
        found: files whose end is one of `FAULTS`: kind, number of the file, and the reason.
        peak_mb: largest resident size of any worker; 0 where the system does not report it.
    """

    ends: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    times_s: list[float] = field(default_factory=list)
    found: list[tuple[str, int, str]] = field(default_factory=list)
    peak_mb: float = 0.0
    wall_s: float = 0.0


def images(count: int = 12, *, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """Draw a pattern that moves, uint8 (height, width, 3)."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    return [
        np.stack(
            [(across * 3 + 9 * n) % 256, (down * 4 + 5 * n) % 256, (across * down // 16 + n) % 256], axis=2
        ).astype(np.uint8)
        for n in range(count)
    ]


def video(suffix: str, codec: str, options: dict[str, str]) -> bytes:
    """Write a video of a second, with sound where the container takes it, and return its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(25 if suffix == "mpg" or "mpeg2" in codec else 12))
            shots = images()
            stream.height, stream.width = shots[0].shape[:2]
            formats = stream.codec_context.codec.video_formats or []
            names = [one.name for one in formats]
            wanted = ("yuvj420p", "yuv420p", "yuv422p10le") if codec == "mjpeg" else ("yuv420p", "yuv422p10le")
            stream.pix_fmt = next((name for name in wanted if name in names), names[0])
            stream.options = options
            sound = container.add_stream("aac", rate=44_100) if suffix in ("mp4", "mov", "mkv", "ts", "flv") else None
            for image in shots:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
            if sound is not None:
                silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
                silence.sample_rate = 44_100
                for number in range(20):
                    silence.pts = number * 1024
                    container.mux(sound.encode(silence))
                container.mux(sound.encode(None))
        return path.read_bytes()


def photo(suffix: str) -> bytes:
    """Write a photo, and return its bytes. Pillow writes no PSD: one is put together by hand."""
    import pillow_heif  # the image formats of Pillow and this

    image = Image.fromarray(images(1, width=160, height=128)[0])
    content = io.BytesIO()
    if suffix == "psd":
        planes = np.asarray(image).transpose(2, 0, 1).tobytes()
        head = b"8BPS" + (1).to_bytes(2, "big") + bytes(6) + (3).to_bytes(2, "big")
        head += image.height.to_bytes(4, "big") + image.width.to_bytes(4, "big") + b"\0\x08\0\3" + bytes(12)
        return head + bytes(2) + planes
    if suffix == "heic":
        pillow_heif.from_pillow(image).save(content, format="HEIF")
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        names = {"jpg": "JPEG", "jp2": "JPEG2000", "tiff": "TIFF"}
        extra = {"exif": exif} if suffix in ("jpg", "webp", "png", "tiff") else {}
        image.save(content, format=names.get(suffix, suffix.upper()), **extra)
    return content.getvalue()


def animated_webp() -> bytes:
    """Write an animation as WebP."""
    content = io.BytesIO()
    first, *rest = (Image.fromarray(image) for image in images(8))
    first.save(content, format="WEBP", save_all=True, append_images=rest, duration=200)
    return content.getvalue()


def originals(kinds: list[str] | None = None) -> dict[str, tuple[str, bytes]]:
    """Write a file of each kind; kind -> suffix, bytes. What cannot be written on this system is named on stderr."""
    makers: dict[str, tuple[str, Callable[[], bytes]]] = {
        kind: (suffix, partial(video, suffix, codec, options)) for kind, (suffix, codec, options) in VIDEOS.items()
    }
    makers |= {f"{suffix} photo": (suffix, partial(photo, suffix)) for suffix in PHOTOS}
    makers["webp animation"] = ("webp", animated_webp)
    found: dict[str, tuple[str, bytes]] = {}
    for kind, (suffix, make) in makers.items():
        if kinds and kind not in kinds:
            continue
        try:
            found[kind] = (suffix, make())
        except (ValueError, OSError, LookupError, RuntimeError, av.error.FFmpegError) as error:
            print(f"{kind} cannot be written here: {error}", file=sys.stderr)
    return found


def _span(data: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    """Choose a part: mostly short, and as often near an end of the file as anywhere."""
    length = int(min(len(data), 2 ** rng.uniform(0, 12)))
    where = rng.integers(3)
    latest = len(data) - length
    if where == 0:
        first = int(rng.integers(min(HEAD, latest + 1)))
    elif where == 1:
        first = int(latest - rng.integers(min(HEAD, latest + 1)))
    else:
        first = int(rng.integers(latest + 1))
    return first, first + length


def flip_bits(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    for _number in range(int(2 ** rng.uniform(0, 6))):
        first, _last = _span(data, rng)
        data[first] ^= 1 << int(rng.integers(8))


def write_extreme(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    for _number in range(int(rng.integers(1, 4))):
        first, _last = _span(data, rng)
        size = int(rng.choice([1, 2, 4]))
        value = int(rng.choice(EXTREMES)) & (256**size - 1)
        data[first : first + size] = value.to_bytes(size, "big" if rng.integers(2) else "little")


def write_random(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    first, last = _span(data, rng)
    data[first:last] = rng.bytes(last - first)


def write_zeros(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    first, last = _span(data, rng)
    data[first:last] = bytes(last - first)


def cut_out(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    first, last = _span(data, rng)
    del data[first:last]


def cut_off(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    del data[int(rng.integers(len(data))) :]


def double(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    first, last = _span(data, rng)
    data[last:last] = bytes(data[first:last]) * int(rng.integers(1, 20))


def swap(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    first, last = _span(data, rng)
    other = int(rng.integers(len(data) - (last - first) + 1))
    part = bytes(data[first:last])
    data[first:last] = data[other : other + last - first]
    data[other : other + last - first] = part


def take_from_other(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    first, last = _span(data, rng)
    begin = int(rng.integers(len(other)))
    data[first:last] = other[begin : begin + last - first]


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator, bytes], None], ...] = (
    flip_bits,
    write_extreme,
    write_extreme,
    write_random,
    write_zeros,
    cut_out,
    cut_off,
    double,
    swap,
    take_from_other,
)


def mutated(number: int, seed: int, files: dict[str, tuple[str, bytes]]) -> tuple[str, str, bytes]:
    """Make the file of a number: its kind, suffix and bytes."""
    rng = np.random.default_rng([seed, number])
    kinds = list(files)
    kind = kinds[number % len(kinds)]
    suffix, content = files[kind]
    data = bytearray(content)
    for _ in range(1 + int(rng.geometric(0.6))):
        if data:
            change = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
            change(data, rng, files[kinds[int(rng.integers(len(kinds)))]][1])
    return kind, suffix, bytes(data)


def fuzz(
    files: dict[str, tuple[str, bytes]],
    folder: Path,
    *,
    count: int,
    seed: int,
    settings: DecodeSettings,
    keep: Path | None = None,
) -> Outcome:
    """Decode the first `count` files of a seed."""
    outcome, stop = Outcome(), threading.Event()
    watching = threading.Thread(target=_watch_memory, args=(outcome, stop))
    watching.start()
    began_s = time.monotonic()
    try:
        with Decoder(settings, short_side_px=SIDE_PX) as decoder:
            for first in range(0, count, RUN):
                _run(decoder, range(first, min(first + RUN, count)), outcome, files, folder, seed=seed, keep=keep)
                print(f"{min(first + RUN, count)} files: {dict(outcome.ends)}", file=sys.stderr)
    finally:
        stop.set()
        watching.join()
    outcome.wall_s = time.monotonic() - began_s
    return outcome


def _run(
    decoder: Decoder,
    numbers: range,
    outcome: Outcome,
    files: dict[str, tuple[str, bytes]],
    folder: Path,
    *,
    seed: int,
    keep: Path | None,
) -> None:
    kinds: dict[Path, tuple[str, int]] = {}
    for number in numbers:
        kind, suffix, data = mutated(number, seed, files)
        path = folder / f"{number}.{suffix}"
        path.write_bytes(data)
        kinds[path] = kind, number
    last_s = time.monotonic()
    ended = []
    for item in decoder.decode(kinds):
        if isinstance(item, DecodedSegment):
            continue
        outcome.times_s.append(time.monotonic() - last_s)
        last_s = time.monotonic()
        ended.append(item.path)
        reason = "" if isinstance(item, DecodeFinished) else item.reason
        end = "failed" if reason else ("partly" if isinstance(item, DecodeFinished) and item.problem else "decoded")
        if reason.startswith("the decoder "):
            end = "crash"
        elif reason.startswith("no frame for"):
            end = "time-out"
        elif reason.startswith("needs more"):
            end = "memory"
        elif UNNAMED.match(reason):
            end = "unnamed"
        outcome.ends[end] += 1
        outcome.reasons[re.sub(r"\d+", "n", reason)] += 1
        if end in FAULTS:
            outcome.found.append((*kinds[item.path], reason))
            print(f"{end}: {kinds[item.path]} {reason}", file=sys.stderr)
        if end in (*FAULTS, "memory") and keep is not None:
            (keep / item.path.name).write_bytes(item.path.read_bytes())
    assert ended == list(kinds), "a file has no end, or two"
    for path in kinds:
        path.unlink()


def _watch_memory(outcome: Outcome, stop: threading.Event) -> None:
    """Keep the peak resident size of this process's children.

    A child that has not replaced its program yet has the memory of this process, and is left out.
    """
    own = Path("/proc/self/cmdline")
    while not stop.wait(0.02):
        for child in _children(os.getpid()):
            try:
                if Path(f"/proc/{child}/cmdline").read_bytes() == own.read_bytes():
                    continue
                lines = Path(f"/proc/{child}/status").read_text().splitlines()
            except OSError:
                continue
            peak = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
            outcome.peak_mb = max(outcome.peak_mb, peak)


def _children(pid: int) -> Iterator[int]:
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (task / "children").read_text().split())
    except OSError:
        return


def report(outcome: Outcome, *, kinds: int, seed: int) -> str:
    """Format what was found as markdown."""
    times = sorted(outcome.times_s)
    lines = [
        f"{len(times)} files of {kinds} kinds, seed {seed}: {outcome.wall_s:.0f} s; per file median "
        f"{1000 * statistics.median(times):.0f} ms, 99% {1000 * times[int(0.99 * (len(times) - 1))]:.0f} ms, longest "
        f"{times[-1]:.1f} s; peak memory of a worker {outcome.peak_mb:.0f} MB.",
        "",
        "| decoded | partly, with the reason | failed, with the reason | over the limit of memory | reason not named "
        "| crash | time-out |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        f"| {' | '.join(str(outcome.ends[end]) for end in ENDS)} |",
    ]
    lines += ["", *(f"- {kind}, number {number}: {reason}" for kind, number, reason in outcome.found)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", help="some of the kinds")
    parser.add_argument("--limit-s", type=float, default=20.0)
    parser.add_argument("--memory-gb", type=float, default=DecodeSettings().memory_gb)
    parser.add_argument("--keep", type=Path, help="folder for files that crash, hang or exceed the limit of memory")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    arguments = parser.parse_args()
    files = originals(arguments.kinds)
    if not files:
        parser.error(f"no kind of these: {', '.join([*VIDEOS, *(f'{one} photo' for one in PHOTOS), 'webp animation'])}")
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    settings = DecodeSettings(stall_s=arguments.limit_s, memory_gb=arguments.memory_gb)
    with tempfile.TemporaryDirectory() as folder:
        outcome = fuzz(
            files, Path(folder), count=arguments.files, seed=arguments.seed, settings=settings, keep=arguments.keep
        )
    text = report(outcome, kinds=len(files), seed=arguments.seed)
    print(text)
    print(json.dumps(outcome.reasons.most_common(40), indent=1), file=sys.stderr)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    if outcome.found:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
