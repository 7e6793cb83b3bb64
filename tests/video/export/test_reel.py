"""Reel: spans of different sizes, rates and shapes in one file, in order, with sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.clips import quarters, rotate, write_clip, write_frames
from helpers.coded_films import numbers_of, write_coded_film
from impart.errors import DataError
from impart.video.export.reel import write_reel
from impart.video.export.spans import ExportSpan


def test_spans_follow_each_other_at_one_rate(tmp_path: Path) -> None:
    one, two = tmp_path / "one.mp4", tmp_path / "two.mp4"
    write_coded_film(one, frames=100)
    write_coded_film(two, rate=Fraction(50), frames=200, sound=False)
    spans = [
        ExportSpan(path=one, start_s=1, end_s=2),
        ExportSpan(path=two, start_s=2, end_s=3),
        ExportSpan(path=one, start_s=3, end_s=3.4),
        ExportSpan(path=tmp_path / "gone.mp4", start_s=0, end_s=1),
        ExportSpan(path=tmp_path / "photo.jpg", start_s=0, end_s=0, kind="photo"),
    ]
    written = write_reel(spans, tmp_path / "reel.mp4")
    found = numbers_of(tmp_path / "reel.mp4")
    assert [number for _, number in found] == [*range(25, 50), *range(100, 150, 2), *range(75, 85)]
    assert [time_s for time_s, _ in found] == pytest.approx([number / 25 for number in range(60)])
    assert (written.spans, len(written.failures), written.photos) == (3, 1, 1)
    with av.open(str(tmp_path / "reel.mp4")) as container:
        sound = container.streams.audio[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(60 / 25, abs=0.03)
        assert container.streams.video[0].average_rate == 25
        pieces = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    heard = np.concatenate(pieces)
    silent = heard[round(1.05 * 48_000) : round(1.95 * 48_000)]  # the second film has no sound
    assert np.abs(silent).max() < 0.05
    assert np.abs(heard[:48_000]).max() > 0.3


def test_other_shapes_get_bars_and_turned_films_are_upright(tmp_path: Path) -> None:
    wide = write_clip(tmp_path / "wide.mp4", colours=["red"], seconds_each=2, size=(320, 180))
    turned = write_frames(
        tmp_path / "turned.mp4", [quarters(size=(320, 180))] * 25, times_s=[number / 25 for number in range(25)]
    )
    rotate(turned, 90)
    spans = [
        ExportSpan(path=path, start_s=start, end_s=start + 0.5) for path, start in ((wide, 0), (wide, 1), (turned, 0))
    ]
    write_reel(spans, tmp_path / "reel.mp4")
    with av.open(str(tmp_path / "reel.mp4")) as container:
        last = list(container.decode(video=0))[-1].to_ndarray(format="rgb24").astype(int)
    assert last.shape == (180, 320, 3)
    assert last[:, :100].max() < 30  # bars: the film is 101 pixels wide
    assert last[:, 220:].max() < 30
    # Red, green / blue, white turned clockwise: blue, red / white, green.
    for row, column, colour in ((45, 135, "b"), (45, 185, "r"), (135, 185, "g")):
        values = dict(zip("rgb", last[row, column], strict=True))
        assert max(values, key=values.__getitem__) == colour


def test_a_reel_replaces_nothing(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "film.mp4")
    span = ExportSpan(path=film, start_s=0, end_s=0.5)
    with pytest.raises(DataError, match="one of the exported videos"):
        write_reel([span], film, overwrite=True)
    with pytest.raises(DataError, match=r"reel\.mp4"):
        write_reel([span], tmp_path / "reel.gif")
    with pytest.raises(DataError, match="no such file"):
        write_reel([ExportSpan(path=tmp_path / "gone.mp4", start_s=0, end_s=1)], tmp_path / "reel.mp4")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["film.mp4"]
