"""Measure the speed of indexing, compared with its lower bound and with a simple script.

    python benchmarks/index_speed.py DATA/videos/panda [--encoder mini] [--repeat 3] [--out FILE]

Each way runs in a new process, in turn (A B C D A B C D ...). The figures are medians, since the load of the machine
changes:

- `decode`: the worker process with the settings of the index; frames are discarded;
- `encode`: the same frames, already in memory, in the same batches;
- `side by side`: `decode` and `encode` at the same time, independent of each other: the best possible result;
- `pipeline`: all of `VideoIndex.add` into a new index: worker start, commits, reference pairs, compaction, cache;
- `script`: the same ONNX model, frame by frame: PyAV decodes all frames; each sampled frame becomes a PIL image at full
  size, is resized, cropped, normalised with NumPy, and encoded by a session with default options;
- `torch script` (`--torch`, extra `train`, only for `mini`): the same loop with the image processor of transformers and
  the backbone of the model in eager PyTorch. It runs once.

Imports and opening the model are not timed. If decoding and encoding had their own cores, the slower of the two would
be the lower bound. Here the encoder alone can use every core, and cores share caches and execution units, so the lower
bound is the wall time of both side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import impart

WAYS = ("decode", "encode", "side by side", "pipeline", "script")


@dataclass(kw_only=True)
class Run:
    """Figures of one run. `cpu_s` counts both processes; memory is the peak resident size, 0 if it is unknown."""

    way: str
    frames: int = 0
    encoded: int = 0
    calls: int = 0
    video_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    own_mb: float = 0.0
    worker_mb: float = 0.0


@contextmanager
def clock(run: Run) -> Iterator[None]:
    def cpu_s() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    wall, cpu = time.perf_counter(), cpu_s()
    yield
    run.wall_s, run.cpu_s = time.perf_counter() - wall, cpu_s() - cpu


def decode(clips: list[Path], encoder_id: str) -> Run:
    run = Run(way="decode")
    with clock(run):
        for images, samples, video_s in _decoded(clips, side_px=_load(encoder_id).traits.image_size_px):
            run.encoded += len(images)
            run.frames += samples
            run.video_s += video_s
    return run


def encode(clips: list[Path], encoder_id: str) -> Run:
    from impart.config import EncoderSettings

    encoder, batch = _load(encoder_id), EncoderSettings().batch
    videos = list(_decoded(clips, side_px=encoder.traits.image_size_px))
    run = Run(way="encode", frames=sum(video[1] for video in videos), video_s=sum(video[2] for video in videos))
    with clock(run):
        for images, _, _ in videos:
            for first in range(0, len(images), batch):
                run.encoded += len(encoder.encode_images(images[first : first + batch]).embeddings)
                run.calls += 1
    return run


def side_by_side(clips: list[Path], encoder_id: str) -> Run:
    from impart.config import EncoderSettings

    encoder, batch = _load(encoder_id), EncoderSettings().batch
    side_px = encoder.traits.image_size_px
    videos = list(_decoded(clips, side_px=side_px))
    run = Run(way="side by side", frames=sum(video[1] for video in videos), video_s=sum(video[2] for video in videos))
    with clock(run):
        decoding = threading.Thread(target=lambda: [None for _ in _decoded(clips, side_px=side_px)])
        decoding.start()
        for images, _, _ in videos:
            for first in range(0, len(images), batch):
                run.encoded += len(encoder.encode_images(images[first : first + batch]).embeddings)
                run.calls += 1
        decoding.join()
    return run


def pipeline(clips: list[Path], encoder_id: str) -> Run:
    import faiss  # noqa: F401 - imported outside the clock
    import lancedb  # noqa: F401

    from impart.blending.encoder import default_augmented
    from impart.config import EncoderSettings
    from impart.video.index.events import IndexDone, VideoDone
    from impart.video.index.index import VideoIndex

    encoder, batch = default_augmented(_load(encoder_id)), EncoderSettings().batch
    run = Run(way="pipeline")
    with tempfile.TemporaryDirectory() as folder, clock(run):
        for event in VideoIndex.open(Path(folder) / "index", encoder).add(clips):
            if isinstance(event, VideoDone):
                run.calls += -(-event.segments // batch)
            elif isinstance(event, IndexDone):
                run.frames, run.encoded, run.video_s = event.samples, event.encoded, event.video_s
                assert event.added == len(clips), event
    return run


def script(clips: list[Path], encoder_id: str) -> Run:
    import onnxruntime

    from impart.encoders.onnx.encoder import MINI_FOLDER

    scheme, _, rest = encoder_id.partition(":")
    folder = Path(rest) if rest else MINI_FOLDER
    path = folder / "image.onnx" if scheme == "mini" else folder / "visual" / "model.onnx"
    config = _load(encoder_id).preprocess_config
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pixels = session.get_inputs()[0].name
    size, mean, std = config.size_px, np.array(config.mean, np.float32), np.array(config.std, np.float32)

    def embed(image: Any) -> np.ndarray:
        scale = size / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), 3)  # bicubic
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
        array = (np.asarray(image, np.float32) / 255 - mean) / std
        vector = session.run(None, {pixels: array.transpose(2, 0, 1)[None]})[0][0]
        return np.asarray(vector / np.linalg.norm(vector))

    return _frame_by_frame("script", clips, embed)


def torch_script(clips: list[Path], encoder_id: str) -> Run:
    import torch
    from transformers.models.clip import CLIPImageProcessorPil

    from impart.train.heads.towers.backbone import load_lite2

    config, network = _load(encoder_id).preprocess_config, load_lite2().eval()
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": config.size_px},
        crop_size=config.size_px,
        image_mean=config.mean,
        image_std=config.std,
    )

    def embed(image: Any) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(network(processor(images=image, return_tensors="pt")["pixel_values"])[0])

    return _frame_by_frame("torch script", clips, embed)


def _frame_by_frame(way: str, clips: list[Path], embed: Callable[[Any], np.ndarray]) -> Run:
    """Run the loop of both scripts, at four frames per second."""
    import av
    from PIL import Image

    embed(Image.new("RGB", (640, 360)))
    run = Run(way=way)
    vectors = []
    with clock(run):
        for clip in clips:
            with av.open(str(clip)) as container:
                taken, end_s = 0, 0.0
                for frame in container.decode(video=0):
                    end_s = frame.time
                    if end_s >= taken / 4:
                        vectors.append(embed(frame.to_image()))
                        taken += 1
                run.video_s += end_s
    run.frames = run.encoded = run.calls = len(vectors)
    return run


def _load(encoder_id: str) -> Any:
    """Load the base encoder and run its image tower once."""
    encoder = impart.load_encoder(encoder_id)
    side = encoder.traits.image_size_px
    encoder.encode_images([np.zeros((side, side, 3), np.uint8)] * 8)
    return encoder


def _decoded(clips: list[Path], *, side_px: int) -> Iterator[tuple[list[np.ndarray], int, float]]:
    """Yield, per clip, the frames to encode, the number of samples and the duration in seconds."""
    from impart.config import DecodeSettings
    from impart.video.decode.decoder import Decoder
    from impart.video.decode.sampler import DecodedSegment, DecodeFinished

    images: list[np.ndarray] = []
    with Decoder(DecodeSettings(), short_side_px=side_px) as decoder:
        for item in decoder.decode(clips):
            if isinstance(item, DecodedSegment):
                images.append(item.image)
            elif isinstance(item, DecodeFinished):
                yield images, item.samples, item.info.duration_s
                images = []
            else:
                raise SystemExit(f"{item.path}: {item.reason}")


RUNS: dict[str, Callable[[list[Path], str], Run]] = {
    "decode": decode,
    "encode": encode,
    "side by side": side_by_side,
    "pipeline": pipeline,
    "script": script,
    "torch script": torch_script,
}


def measure(way: str, folder: Path, encoder_id: str, *, checkout: Path | None = None) -> Run:
    """Run one way in a new process, and measure the memory of this process and its worker.

    Args:
        checkout: of the build to measure; None = the one that is imported here.
    """
    command = [sys.executable, __file__, str(folder), "--encoder", encoder_id, "--way", way]
    environment = dict(os.environ) if checkout is None else {**os.environ, "PYTHONPATH": str(checkout / "src")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    own_mb = worker_mb = 0.0
    while process.poll() is None:
        own_mb = max(own_mb, _peak_mb(process.pid))
        worker_mb = max([worker_mb, *(_peak_mb(child) for child in _children(process.pid))])
        time.sleep(0.1)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(f"the run of {way!r} failed")
    run = Run(**json.loads(process.stdout.read().splitlines()[-1]))
    run.own_mb, run.worker_mb = own_mb, worker_mb
    return run


def _peak_mb(pid: int) -> float:
    """Return the peak resident size; 0 if the system does not report it, or the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def report(runs: list[Run], *, cores: int, loads: str, title: str) -> str:
    """Format the medians as a markdown table, with the ratio to the lower bound."""
    by_way = {way: [run for run in runs if run.way == way] for way in RUNS if any(run.way == way for run in runs)}

    def middle(way: str, name: str) -> float:
        return float(statistics.median(getattr(run, name) for run in by_way[way]))

    lines = [
        title,
        "",
        "| | wall s | CPU s | frames/s | seconds of video per second | frames encoded | encoder calls | peak MB "
        "| worker's peak MB | wall s of each run |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way, found in by_way.items():
        wall, one = middle(way, "wall_s"), found[0]
        shown = [f"{wall:.1f}", f"{middle(way, 'cpu_s'):.1f}", f"{one.frames / wall:.0f}", f"{one.video_s / wall:.1f}"]
        shown += [f"{one.encoded} of {one.frames}", str(one.calls or "-"), f"{middle(way, 'own_mb'):.0f}"]
        shown += [f"{middle(way, 'worker_mb'):.0f}" if middle(way, "worker_mb") else "-"]
        lines.append(f"| {way} | {' | '.join(shown)} | {' '.join(f'{run.wall_s:.1f}' for run in found)} |")
    wall, busy = middle("pipeline", "wall_s"), middle("decode", "cpu_s") + middle("encode", "cpu_s")
    floors = {
        "decoding's wall time": middle("decode", "wall_s"),
        "encoding's wall time": middle("encode", "wall_s"),
        "both side by side": middle("side by side", "wall_s"),
    }
    name = max(floors, key=lambda key: floors[key])
    lines += [
        "",
        f"- Floor: {', '.join(f'{key} {value:.1f} s' for key, value in floors.items())}; the largest is {name}.",
        f"- Pipeline: {wall / floors[name]:.2f} x floor (wanted: at most 1.15); "
        f"{wall / max(floors[key] for key in list(floors)[:2]):.2f} x the slower of decoding and encoding alone; "
        f"CPU time {middle('pipeline', 'cpu_s') / busy:.2f} x that of both.",
    ]
    for way in ("script", "torch script"):
        if way in by_way:
            slower, cpu = middle(way, "wall_s") / wall, middle(way, "cpu_s") / middle("pipeline", "cpu_s")
            lines.append(f"- The {way} takes {slower:.1f} x the pipeline's wall time, {cpu:.1f} x its CPU time.")
    lines.append(f"- {cores} cores; load averages (1 minute) before, between and after: {loads}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of .mp4 clips")
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--torch", action="store_true", help="run the PyTorch script too, once")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    parser.add_argument("--way", choices=list(RUNS), help=argparse.SUPPRESS)  # for the process that is measured
    arguments = parser.parse_args()
    clips = sorted(arguments.clips.glob("*.mp4"))
    if not clips:
        parser.error(f"{arguments.clips} holds no .mp4 file")
    if arguments.way:
        print(json.dumps(asdict(RUNS[arguments.way](clips, arguments.encoder))))
        return
    runs, loads = [], []
    for turn in range(arguments.repeat):
        for way in [*WAYS, *(["torch script"] if arguments.torch and not turn else [])]:
            loads.append(f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?")
            runs.append(measure(way, arguments.clips, arguments.encoder))
            run = runs[-1]
            print(f"{turn + 1} {way}: {run.wall_s:.1f} s, CPU {run.cpu_s:.1f} s, load {loads[-1]}", file=sys.stderr)
    title = f"{len(clips)} clips, {runs[0].video_s:.0f} s of video, encoder `{arguments.encoder}`, "
    title += f"medians of {arguments.repeat} runs in turn."
    text = report(runs, cores=os.cpu_count() or 1, loads=" ".join(loads), title=title)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
