"""Decoder process: order, crashes, hangs, back-pressure, and no process left."""

from __future__ import annotations

import os
import signal as signals
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import clips
from impart.config import DecodeSettings
from impart.errors import DecodeError
from impart.video.decode.decoder import Decoder
from impart.video.decode.sampler import DecodedSegment, DecodeFailed, DecodeFinished, sample_video

SETTINGS = DecodeSettings(reuse_threshold=0)


def troubled(tmp_path: Path, trouble: str) -> list[str]:
    """A worker command that does `trouble` when asked for a file whose name starts with "bad"."""
    script = tmp_path / "troubled.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from pathlib import Path
            from impart.video.decode import worker

            real = worker.sample_video

            def sample(path, **options):
                for number, item in enumerate(real(path, **options)):
                    if path.name.startswith("bad") and number == 1:
                        TROUBLE
                    yield item

            worker.sample_video = sample
            worker.main()
            """
        ).replace("TROUBLE", trouble)
    )
    return [sys.executable, str(script)]


def kinds(items: list[DecodedSegment | DecodeFinished | DecodeFailed]) -> list[tuple[str, str]]:
    return [(item.path.stem, type(item).__name__) for item in items if not isinstance(item, DecodedSegment)]


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [
        clips.write_clip(tmp_path / f"{name}.mp4", colours=[colour, "white"], seconds_each=0.5)
        for name, colour in [("a", "red"), ("bad", "green"), ("c", "blue")]
    ]


def test_same_as_in_process_and_in_order(tmp_path, three):
    (tmp_path / "empty.mp4").touch()
    paths = [three[0], tmp_path / "empty.mp4", three[2], three[1]]
    with Decoder(SETTINGS, short_side_px=64) as decoder:
        items = list(decoder.decode(paths))
        again = list(decoder.decode(iter(paths[:1])))  # the same worker serves a second call
    expected: list[DecodedSegment | DecodeFinished | DecodeFailed] = []
    for path in paths:
        if path.stem == "empty":
            expected.append(DecodeFailed(path, "the file is empty"))
        else:
            expected += sample_video(path, settings=SETTINGS, short_side_px=64)
    assert len(items) == len(expected)
    for item, wanted in zip(items, expected, strict=True):
        if isinstance(item, DecodedSegment):
            assert isinstance(wanted, DecodedSegment)
            assert np.array_equal(item.image, wanted.image)
            assert (item.path, item.start_s, item.end_s, item.weight) == (
                wanted.path,
                wanted.start_s,
                wanted.end_s,
                wanted.weight,
            )
        else:
            assert item == wanted
    assert len(again) == len([item for item in items if item.path == paths[0]])


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("os.abort()", "crashed with"),
        ("os._exit(7)", "exit code 7"),
        ("raise ValueError('a bug')", "cannot be decoded: ValueError: a bug"),
        ("raise OverflowError('too late')", "cannot be decoded: OverflowError: too late"),
        ("sys.stdout.write('noise')", None),
    ],
)
def test_a_crash_costs_one_file(tmp_path, three, trouble, words):
    with Decoder(SETTINGS, short_side_px=64, command=troubled(tmp_path, trouble)) as decoder:
        items = list(decoder.decode(three))
    middle = "DecodeFinished" if words is None else "DecodeFailed"
    assert kinds(items) == [("a", "DecodeFinished"), ("bad", middle), ("c", "DecodeFinished")]
    if words is not None:
        failed = next(item for item in items if isinstance(item, DecodeFailed))
        assert words in failed.reason
        assert "raise" not in trouble or failed.reason == words  # not: the decoder stopped with exit code 1
    assert sum(item.weight for item in items if isinstance(item, DecodedSegment) and item.path.stem == "c") == 4


@pytest.mark.skipif(os.name != "posix", reason="signals by name")
def test_being_killed_each_time_is_named_and_no_property_of_the_file(tmp_path, three):
    command = troubled(tmp_path, "os.kill(os.getpid(), 9)")
    with Decoder(SETTINGS, short_side_px=64, command=command) as decoder:
        items = list(decoder.decode(three))
    failed = [item for item in items if isinstance(item, DecodeFailed)]
    assert [item.path.stem for item in failed] == ["bad"]
    assert failed[0].reason == "the decoder was killed by SIGKILL (out of memory?)"
    assert not failed[0].lasting
    assert kinds(items) == [("a", "DecodeFinished"), ("bad", "DecodeFailed"), ("c", "DecodeFinished")]


@pytest.mark.skipif(os.name != "posix", reason="signals by name")
@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM"])
def test_a_file_whose_decoder_is_killed_once_is_decoded_again(tmp_path, three, signal):
    mark, number = tmp_path / "killed", getattr(signals, signal).value
    once = f"Path({str(mark)!r}).exists() or (Path({str(mark)!r}).touch(), os.kill(os.getpid(), {number}))"
    with Decoder(SETTINGS, short_side_px=64) as decoder:
        expected = list(decoder.decode(three))
    with Decoder(SETTINGS, short_side_px=64, command=troubled(tmp_path, once)) as decoder:
        items = list(decoder.decode(three))
    assert mark.exists()
    assert kinds(items) == kinds(expected)
    spans = [
        [(item.path, item.start_s, item.end_s, item.image.tobytes()) for item in each if hasattr(item, "image")]
        for each in (items, expected)
    ]
    assert spans[0] == spans[1], "no segment is missing or there twice"


@pytest.mark.skipif(os.name != "posix", reason="signals by name")
@pytest.mark.parametrize("kills", [1, 2, 9])
def test_a_worker_that_is_killed_while_it_starts_is_started_again(tmp_path, three, kills):
    script = tmp_path / "killed.py"
    script.write_text(
        f"import os, pathlib\nmark = pathlib.Path({str(tmp_path / 'starts')!r})\n"
        "mark.open('a').write('x')\n"
        f"if len(mark.read_text()) <= {kills}:\n    os.kill(os.getpid(), 9)\n"
        "from impart.video.decode import worker\nworker.main()\n"
    )
    with Decoder(SETTINGS, short_side_px=64, command=[sys.executable, str(script)]) as decoder:
        if kills < 3:
            assert [kind for _, kind in kinds(list(decoder.decode(three)))] == ["DecodeFinished"] * 3
        else:
            with pytest.raises(DecodeError, match=r"killed by SIGKILL.*\(3 times\)"):
                list(decoder.decode(three))
            assert len((tmp_path / "starts").read_text()) == 3


def test_a_hang_costs_one_file_and_the_time_allowed(tmp_path, three):
    settings = DecodeSettings(reuse_threshold=0, stall_s=1.5)
    with Decoder(settings, short_side_px=64, command=troubled(tmp_path, "time.sleep(600)")) as decoder:
        begun = time.monotonic()
        items = list(decoder.decode(three))
        took_s = time.monotonic() - begun
    assert kinds(items) == [("a", "DecodeFinished"), ("bad", "DecodeFailed"), ("c", "DecodeFinished")]
    failed = next(item for item in items if isinstance(item, DecodeFailed))
    assert failed.reason == "no frame for 1.5 s; decoding was stopped"
    assert 1.5 <= took_s < 10


def test_waiting_for_the_encoder_is_not_a_hang(tmp_path):
    path = clips.write_clip(tmp_path / "a.mp4", colours=["red", "blue"] * 2, seconds_each=1.0)
    settings = DecodeSettings(fps=8, reuse_threshold=0, stall_s=1.0, look_ahead=2)
    with Decoder(settings, short_side_px=224) as decoder:
        items = []
        for item in decoder.decode([path]):
            if len(items) == 3:
                time.sleep(2.5)  # a slow encoder; the queue and the pipe are full meanwhile
            items.append(item)
    assert kinds(items) == [("a", "DecodeFinished")]
    assert len(items) == 33


def test_a_long_still_is_not_a_hang(tmp_path, three):
    # No segment for 3 s, but `alive` messages.
    trouble = "[(time.sleep(0.1), options['on_progress'](0.0)) for _ in range(30)]"
    settings = DecodeSettings(reuse_threshold=0, stall_s=2.0)
    with Decoder(settings, short_side_px=64, command=troubled(tmp_path, trouble)) as decoder:
        assert [kind for _, kind in kinds(list(decoder.decode(three)))] == ["DecodeFinished"] * 3


def test_decodes_ahead_across_files_within_the_bound(tmp_path):
    paths = [clips.write_clip(tmp_path / f"{i}.mp4", seconds_each=1.0, size=(320, 320)) for i in range(12)]
    settings = DecodeSettings(reuse_threshold=0, look_ahead=10)
    with Decoder(settings, short_side_px=320) as decoder:
        stream = decoder.decode(paths)
        next(stream)
        time.sleep(1.5)
        assert decoder._worker is not None
        assert decoder._worker._messages.qsize() == 10  # further files are ready, and no more than allowed
        assert len(list(stream)) == 12 * 5 - 1


def test_leaving_early_ends_the_worker_and_the_decoder_can_be_used_again(three):
    with Decoder(SETTINGS, short_side_px=64) as decoder:
        stream = decoder.decode(three)
        next(stream)
        assert decoder._worker is not None
        process = decoder._worker._process
        stream.close()
        assert process.poll() is not None
        assert len(kinds(list(decoder.decode(three)))) == 3


def test_a_worker_that_died_idle_is_replaced(three):
    with Decoder(SETTINGS, short_side_px=64) as decoder:
        assert len(kinds(list(decoder.decode(three[:1])))) == 1
        assert decoder._worker is not None
        decoder._worker._process.kill()
        decoder._worker._process.wait()
        assert [kind for _, kind in kinds(list(decoder.decode(three)))] == ["DecodeFinished"] * 3


@pytest.mark.skipif(os.name != "posix", reason="asks for a process by signal 0")
def test_the_worker_ends_with_the_process_that_started_it(tmp_path):
    path = clips.write_clip(tmp_path / "bad.mp4", seconds_each=1.0)
    command = troubled(tmp_path, "time.sleep(600)")  # hangs: it cannot notice by writing
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            f"""
            from pathlib import Path
            from impart.video.decode.decoder import Decoder
            decoder = Decoder(short_side_px=64, command={command!r})
            stream = decoder.decode([Path({str(path)!r})])
            worker = decoder._running()
            print(worker._process.pid, flush=True)
            for item in stream: pass
            """
        )
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not _runs(worker):
            break
        time.sleep(0.1)
    assert not _runs(worker)


def test_a_worker_that_cannot_start_is_an_error_and_fails_no_file(tmp_path, three):
    broken = [sys.executable, "-c", "import no_such_module_anywhere"]
    with (
        Decoder(SETTINGS, short_side_px=64, command=broken) as decoder,
        pytest.raises(DecodeError, match="no_such_module"),
    ):
        list(decoder.decode(three))
    missing = [str(tmp_path / "no-python")]
    with Decoder(SETTINGS, short_side_px=64, command=missing) as decoder, pytest.raises(DecodeError, match="no-python"):
        list(decoder.decode(three))


def test_names_that_are_not_text(tmp_path):
    if sys.platform != "linux":
        pytest.skip("only Linux has file names that are not Unicode")
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    clips.write_clip(tmp_path / "plain.mp4", seconds_each=0.3).rename(path)
    with Decoder(SETTINGS, short_side_px=64) as decoder:
        finished = list(decoder.decode([path]))[-1]
    assert isinstance(finished, DecodeFinished)
    assert finished.path == path


def test_starting_the_worker_imports_little():
    code = "import sys, impart.video.decode.worker as _; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"av", "numpy"} <= set(loaded)
    assert not {"lancedb", "onnxruntime", "pyarrow", "torch", "faiss", "PIL", "typer", "fastapi"} & set(loaded)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().split(")")[-1].split()[0] == "Z")


# Memory


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is enforced there alone")
def test_a_file_that_needs_more_memory_than_the_limit_is_named_and_costs_only_itself(tmp_path, three):
    images = [np.zeros((1440, 2560, 3), np.uint8)] * 3
    large = clips.write_frames(tmp_path / "large.mp4", images, times_s=[0.0, 0.1, 0.2], preset="ultrafast")
    photo = tmp_path / "large.png"
    Image.new("RGB", (4500, 4500)).save(photo)
    paths = [three[0], large, photo, three[2]]
    with Decoder(DecodeSettings(memory_gb=0.04), short_side_px=64) as decoder:
        items = list(decoder.decode(paths))
    assert [kind for _, kind in kinds(items)] == ["DecodeFinished", "DecodeFailed", "DecodeFailed", "DecodeFinished"]
    for item in items:
        if isinstance(item, DecodeFailed):
            assert item.reason == "needs more than 0.04 GB of memory to decode (decode.memory_gb sets the limit)"
            assert item.lasting
    with Decoder(DecodeSettings(), short_side_px=64) as decoder:
        assert all(kind == "DecodeFinished" for _, kind in kinds(list(decoder.decode(paths))))


def test_a_library_that_ends_the_process_for_lack_of_memory_is_named_as_such(tmp_path, three):
    trouble = "sys.stderr.write('terminate called after throwing\\n  what():  std::bad_alloc\\n'); os.abort()"
    with Decoder(DecodeSettings(memory_gb=2), short_side_px=64, command=troubled(tmp_path, trouble)) as decoder:
        failed = [item for item in decoder.decode(three) if isinstance(item, DecodeFailed)]
    assert [item.reason for item in failed] == [
        "needs more than 2 GB of memory to decode (decode.memory_gb sets the limit)"
    ]
