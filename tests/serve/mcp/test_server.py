"""The MCP tools, called by the official client in memory."""

from __future__ import annotations

import base64
import io
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from PIL import Image

from helpers.tiny_encoder import TinyEncoder
from impart.serve.mcp.library import Library
from impart.serve.mcp.server import make_server
from impart.video.index.index import VideoIndex

READ = {
    "library", "search_moments", "similar", "find_name", "names", "videos", "scenes", "get_frame", "export_timeline",
}  # fmt: skip
WRITE = {"teach_name", "rename_name", "remove_name"}


def call(library: Library, tool: str, /, **arguments: Any) -> Any:
    """Call one tool, and return the whole result."""

    async def run() -> Any:
        async with Client(make_server(library)) as client:
            return await client.call_tool(tool, arguments)

    return anyio.run(run)


def answer(library: Library, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """Call one tool that succeeds, and return its structured answer."""
    result = call(library, tool, **arguments)
    assert not result.is_error, result.content
    return result.structured_content


def refused(library: Library, tool: str, /, **arguments: Any) -> str:
    """Call one tool that fails, and return its message."""
    result = call(library, tool, **arguments)
    assert result.is_error
    return result.content[0].text


@pytest.fixture
def library(index: VideoIndex) -> Library:
    return Library(index)


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Library:
    """A library that a test may write."""
    copied = shutil.copytree(folder / "library.impart", tmp_path / "own.impart")
    index = VideoIndex.open(copied, TinyEncoder(), create=False)
    return Library(index, may_write=True, exports=tmp_path / "exports")


def id_of(library: Library, name: str) -> str:
    (found,) = answer(library, "videos", name_contains=name)["videos"]
    return found["video_id"]


def tools_of(library: Library) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with Client(make_server(library)) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    return anyio.run(run)


def test_read_only_tools_are_listed_with_schemas_and_descriptions(library: Library) -> None:
    tools = tools_of(library)
    assert tools.keys() == READ
    for tool in tools.values():
        assert all([tool.title, tool.description, tool.output_schema]), tool.name
        assert tool.annotations.read_only_hint is True
        assert tool.annotations.open_world_hint is False
        for name, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), (tool.name, name)
            assert "path" not in name
    moment = tools["search_moments"].output_schema["$defs"]["FoundMoment"]
    assert {"video_id", "start_s", "end_s", "timecode"} <= set(moment["required"])
    assert moment["properties"]["start_s"]["type"] == "number"


def test_tools_that_write_are_listed_only_where_it_is_allowed(index: VideoIndex, own: Library) -> None:
    tools = tools_of(own)
    assert tools.keys() == READ | WRITE | {"save_timeline"}
    assert not any(tools[name].annotations.read_only_hint for name in [*WRITE, "save_timeline"])
    assert tools["remove_name"].annotations.destructive_hint is True
    assert tools_of(Library(index, may_write=True)).keys() == READ | WRITE
    assert "Unknown tool" in refused(Library(index), "remove_name", name="x")


def test_search_gives_spans_in_plain_seconds(library: Library) -> None:
    found = answer(library, "search_moments", text="blue")
    best = found["moments"][0]
    assert (best["name"], best["start_s"], best["end_s"], best["timecode"]) == ("a.mp4", 4.0, 6.0, "00:00:04.000")
    assert isinstance(best["score"], float)
    assert best["strong"] is True
    again = answer(library, "search_moments", text="red", group="moment", folder="films", kind="video", limit=1)
    assert [one["name"] for one in again["moments"]] == ["a.mp4"]
    assert again["next_offset"] == 1
    after = answer(library, "search_moments", text="red", group="moment", limit=1, offset=1)
    assert after["moments"][0]["rank"] == 2
    photo = answer(library, "search_moments", text="magenta")["moments"][0]
    assert (photo["name"], photo["kind"], photo["video_s"]) == ("c.png", "photo", 0.0)


def test_a_sequence_has_its_parts(library: Library) -> None:
    best = answer(library, "search_moments", text="green", then="blue", not_text=["black"])["moments"][0]
    assert [(step["start_s"], step["end_s"]) for step in best["steps"]] == [(2.0, 4.0), (4.0, 6.0)]


def test_filters_that_leave_nothing_and_folders_that_are_not_there(library: Library) -> None:
    none = answer(library, "search_moments", text="red", since="1990", until="1991")
    assert (none["moments"], none["next_offset"]) == ([], None)
    assert "other words" in none["note"]
    message = refused(library, "search_moments", text="red", folder="/etc")
    assert "no folder '/etc'" in message
    assert "trip" in message
    assert "date" in refused(library, "search_moments", text="red", since="yesterday")
    assert "limit" in refused(library, "search_moments", text="red", limit=1000)


def test_a_text_that_the_model_cannot_read_is_named(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tokenizer:
        def remark(self, text: str) -> str:
            return "has no word of the model" if text == "a blorb" else ""

    monkeypatch.setattr("impart.serve.mcp.read_tools.tokenizer_of", lambda encoder: Tokenizer())
    found = answer(library, "search_moments", text="a blorb", not_text=["red"])
    assert found["note"].startswith("the text 'a blorb' has no word of the model; ")
    assert "the text" not in answer(library, "search_moments", text="blue")["note"]


def test_similar_moments_of_a_moment_and_of_a_photo(library: Library) -> None:
    found = answer(library, "similar", video_id=id_of(library, "a.mp4"), at_s=0.5, group="scene")
    first = found["moments"][0]
    assert (first["name"], first["start_s"], first["end_s"]) == ("a.mp4", 6.0, 8.0)
    photo = answer(library, "similar", video_id=id_of(library, "c.png"), at_s=3.0)
    assert "c.png" not in {one["name"] for one in photo["moments"]}


def test_scenes_in_order(library: Library) -> None:
    video = id_of(library, "a.mp4")
    found = answer(library, "scenes", video_id=video, limit=3)
    assert [(one["start_s"], one["end_s"]) for one in found["scenes"]] == [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0)]
    assert (found["total"], found["next_offset"], found["video"]["video_id"]) == (4, 3, video)


def test_the_library_and_its_videos(library: Library, folder: Path) -> None:
    contents = answer(library, "library")
    assert (contents["videos"], contents["photos"], contents["video_s"]) == (2, 1, 16.0)
    assert [(one["folder"], one["videos"], one["photos"]) for one in contents["folders"]] == [
        (str(folder / "films"), 2, 1),
        (str(folder / "films" / "trip"), 1, 1),
    ]
    assert contents["may_write"] is False
    listed = answer(library, "videos", folder="trip")
    assert [one["name"] for one in listed["videos"]] == ["b.mp4", "c.png"]


@pytest.mark.parametrize("name", ["similar", "scenes", "get_frame"])
def test_an_unknown_id_names_the_remedy(library: Library, name: str) -> None:
    arguments = {"video_id": "../../etc/passwd"} | ({} if name == "scenes" else {"at_s": 1.0})
    message = refused(library, name, **arguments)
    assert "no video has the id" in message
    assert "search_moments" in message


def test_a_frame_is_an_image_of_the_right_moment(library: Library) -> None:
    result = call(library, "get_frame", video_id=id_of(library, "a.mp4"), at_s=4.5, width=100)
    facts = result.structured_content
    assert (facts["at_s"], facts["timecode"], facts["width"], facts["height"]) == (4.5, "00:00:04.500", 100, 75)
    (content,) = [one for one in result.content if one.type == "image"]
    shown = Image.open(io.BytesIO(base64.b64decode(content.data)))
    assert (shown.format, shown.size, content.mime_type) == ("JPEG", (100, 75), "image/jpeg")
    red, green, blue = shown.getpixel((50, 40))
    assert blue > 200
    assert red < 50
    assert green < 50
    photo = call(library, "get_frame", video_id=id_of(library, "c.png"), at_s=0, width=160).structured_content
    assert (photo["width"], photo["height"]) == (160, 100)
    assert "outside" in refused(library, "get_frame", video_id=id_of(library, "a.mp4"), at_s=100)


def test_a_timeline_is_text_and_leaves_no_file(library: Library, folder: Path) -> None:
    spans = [
        {"video_id": id_of(library, "a.mp4"), "start_s": 2.0, "end_s": 4.0, "label": "green"},
        {"video_id": id_of(library, "c.png"), "start_s": 0.0, "end_s": 0.0 + 1},
    ]
    before = sorted(folder.rglob("*"))
    made = answer(library, "export_timeline", spans=spans, form="edl", title="cut one")
    assert "TITLE: cut one" in made["text"]
    assert "00:00:02:00 00:00:04:00" in made["text"]
    assert made["spans"] == 1
    assert any("photos left out" in note for note in made["notes"])
    assert sorted(folder.rglob("*")) == before
    for form, mark in {"fcp7": "<xmeml", "fcpxml": "<fcpxml", "csv": "start_s"}.items():
        assert mark in answer(library, "export_timeline", spans=spans[:1], form=form)["text"]
    wrong = [{"video_id": spans[0]["video_id"], "start_s": 4.0, "end_s": 2.0}]
    assert "not after" in refused(library, "export_timeline", spans=wrong)


def test_a_timeline_is_saved_below_the_folder_alone_and_replaces_nothing(own: Library, tmp_path: Path) -> None:
    spans = [{"video_id": id_of(own, "a.mp4"), "start_s": 2.0, "end_s": 4.0}]
    saved = answer(own, "save_timeline", spans=spans, file_name="cut", form="edl")
    assert Path(saved["file"]) == tmp_path / "exports" / "cut.edl"
    assert "00:00:02:00" in (tmp_path / "exports" / "cut.edl").read_text(encoding="utf-8")
    assert "choose another file_name" in refused(own, "save_timeline", spans=spans, file_name="cut.edl", form="edl")
    for name in ("../cut", "/tmp/cut", "..", ".hidden", "a\\b", "a\nb", " "):
        assert "no file name" in refused(own, "save_timeline", spans=spans, file_name=name, form="csv")
    assert {path.name for path in tmp_path.rglob("cut*")} == {"cut.edl"}


def test_a_name_is_taught_found_renamed_and_removed(own: Library) -> None:
    video = id_of(own, "a.mp4")
    taught = answer(own, "teach_name", name="Rex", moments=[{"video_id": video, "at_s": 0.5}])
    assert (taught["name"], taught["images"], taught["added"], taught["failed"]) == ("Rex", 1, 1, [])
    again = answer(own, "teach_name", name="rex", moments=[{"video_id": video, "at_s": 0.5}])
    assert (again["name"], again["images"], again["added"]) == ("Rex", 1, 0)
    spans = answer(own, "find_name", name="rex", by_time=True, video_id=video)["moments"]
    assert [(one["start_s"], one["end_s"], one["names"]) for one in spans] == [(0.0, 2.0, ["Rex"]), (6.0, 8.0, ["Rex"])]
    assert answer(own, "names")["names"] == [{"name": "Rex", "images": 1, "in_force": 1}]
    assert "outside" in refused(own, "teach_name", name="Rex", moments=[{"video_id": video, "at_s": 99.0}])
    assert answer(own, "rename_name", name="rex", new_name="Max")["images"] == 1
    assert answer(own, "remove_name", name="max")["images"] == 0
    assert "no name 'Max'" in refused(own, "find_name", name="Max")


def test_the_model_is_loaded_once_for_calls_at_the_same_time(
    index: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def load(model_id: str, **options: object) -> TinyEncoder:
        loads.append(model_id)
        threading.Event().wait(0.1)
        return TinyEncoder()

    monkeypatch.setattr("impart.video.index.encoder_in_use.load_encoder", load)
    index = VideoIndex.open(index.path, create=False)

    async def run() -> None:
        async with Client(make_server(Library(index))) as client, anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(client.call_tool, "search_moments", {"text": "red"})

    anyio.run(run)
    assert loads == ["tiny"]


def test_a_cancelled_call_ends_at_once_and_the_server_goes_on(index: VideoIndex) -> None:
    release, entered = threading.Event(), threading.Event()

    class Slow(TinyEncoder):
        def encode_texts(self, texts):  # type: ignore[no-untyped-def]
            entered.set()
            release.wait(20)
            return super().encode_texts(texts)

    library = Library(VideoIndex.open(index.path, Slow(), create=False))

    async def run() -> float:
        async with Client(make_server(library)) as client:
            began = anyio.current_time()
            with anyio.move_on_after(0.5) as scope:
                await client.call_tool("search_moments", {"text": "red"})
            assert scope.cancelled_caught
            took_s = anyio.current_time() - began
            assert entered.is_set()
            assert (await client.call_tool("names", {})).structured_content == {"names": []}
            release.set()
            return took_s

    assert anyio.run(run) < 3


def test_progress_is_reported_while_a_call_runs(index: VideoIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impart.serve.mcp.calls._PROGRESS_S", 0.05)

    class Slow(TinyEncoder):
        def encode_texts(self, texts):  # type: ignore[no-untyped-def]
            threading.Event().wait(0.5)
            return super().encode_texts(texts)

    library, seen = Library(VideoIndex.open(index.path, Slow(), create=False)), []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(message)

    async def run() -> None:
        async with Client(make_server(library)) as client:
            await client.call_tool("search_moments", {"text": "red"}, progress_callback=note)

    anyio.run(run)
    assert "still working" in seen


def test_a_name_that_is_no_text_reaches_the_client(folder: Path, tmp_path: Path) -> None:
    films = os.fsencode(tmp_path / "films")
    (tmp_path / "films").mkdir()
    try:
        shutil.copy(os.fsencode(folder / "films" / "a.mp4"), films + b"/\xff.mp4")
    except OSError:
        pytest.skip("this disk has no such names")
    index = VideoIndex.open(tmp_path / "library.impart", TinyEncoder())
    list(index.add([tmp_path / "films"]))
    library = Library(index)
    best = answer(library, "search_moments", text="blue")["moments"][0]
    assert (best["name"], best["start_s"]) == ("\\xff.mp4", 4.0)
    assert answer(library, "get_frame", video_id=best["video_id"], at_s=4.5)["name"] == "\\xff.mp4"
