"""The MCP tools that only read: search, scenes, names, frames, timelines as text.

The docstring of a tool is what a model reads when it chooses one.
"""

from __future__ import annotations

import base64
import io
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, ImageContent, TextContent
from PIL import Image
from pydantic import Field

from impart.config import Group
from impart.encoders.base import Encoder
from impart.encoders.tokens import tokenizer_of
from impart.errors import DataError, QueryError
from impart.serve.mcp.calls import in_thread
from impart.serve.mcp.library import Library
from impart.serve.mcp.results import (
    FoundMoment,
    FoundMoments,
    FrameFacts,
    LibraryContents,
    NameEntry,
    NameList,
    SceneEntry,
    SceneList,
    TimelineText,
    VideoEntry,
    VideoList,
)
from impart.serve.mcp.timelines import TextForm, TimelineSpan, timeline_text
from impart.serve.schemas.text import path_text
from impart.video.export.thumbnails import thumbnails
from impart.video.index.store import Kind
from impart.video.search.hits import Hit, timecode
from impart.video.search.query import WITHIN_S, Query, SearchKeywords

__all__ = ["ReadTools"]

_AFTER_END_S = 0.5
_JPEG_QUALITY = 85

VideoIdArgument = Annotated[str, Field(description="id of a video, from an answer of another tool")]
AtArgument = Annotated[float, Field(ge=0, description="seconds from the start of the video; 0 for a photo")]
LimitArgument = Annotated[int, Field(ge=1, le=100, description="most results")]
OffsetArgument = Annotated[int, Field(ge=0, description="results to leave out; use next_offset of the answer before")]
FolderArgument = Annotated[
    str | None, Field(description="only below this folder: a text that `library` lists, or the end of one")
]
KindArgument = Annotated[Kind | None, Field(description="only videos, or only photos")]
GroupArgument = Annotated[
    Group,
    Field(
        description="one result per video (with its further moments), per moment, per scene or per frame",
    ),
]
SpansArgument = Annotated[list[TimelineSpan], Field(min_length=1, max_length=500, description="spans, in their order")]
HandlesArgument = Annotated[float, Field(ge=0, le=60, description="seconds of material to add on both sides")]


class ReadTools:
    """Tools that change nothing.

    Args:
        library: what they read.
    """

    def __init__(self, library: Library) -> None:
        self._library = library

    async def search_moments(
        self,
        context: Context[Any, Any],
        text: Annotated[str, Field(description="what is seen, in plain words, such as 'a dog on a skateboard'")],
        not_text: Annotated[list[str], Field(description="what must not be seen", max_length=10)] = [],  # noqa: B006
        then: Annotated[str | None, Field(description="what is seen later in the same video")] = None,
        within_s: Annotated[float, Field(ge=0, description="most seconds until `then`")] = WITHIN_S,
        folder: FolderArgument = None,
        kind: KindArgument = None,
        since: Annotated[
            str | None, Field(description="recorded in or after: 2024, 2024-05, 2024-05-01, 2024-05-01T18:30")
        ] = None,
        until: Annotated[str | None, Field(description="recorded in or before, as `since`")] = None,
        min_length_s: Annotated[float | None, Field(ge=0, description="least length of the video")] = None,
        max_length_s: Annotated[float | None, Field(ge=0, description="greatest length of the video")] = None,
        names: Annotated[bool, Field(description="find taught names in the text; false = ordinary words")] = True,
        group: GroupArgument = "video",
        limit: LimitArgument = 10,
        offset: OffsetArgument = 0,
    ) -> FoundMoments:
        """Find moments of videos, and photos, by a description of what is seen in them.

        Use it first for any question about what the videos show. It searches by image content, not by speech, written
        text or file names (for file names use `videos`). Short descriptions of one image work best: objects, people,
        places, actions. For two things one after the other, use `then`. A taught name in the text, such as a person's,
        is found by its images. Results with strong=false may be wrong: check them with `get_frame`.
        """

        def work() -> FoundMoments:
            query = Query(
                text=text,
                not_text=not_text,
                then=None if then is None else Query(text=then),
                within_s=within_s,
            )
            keywords: SearchKeywords = {
                "top": limit + 1,
                "offset": offset,
                "group": group,
                "folder": self._library.folder(folder),
                "kind": kind,
                "since": since,
                "until": until,
                "min_length": min_length_s,
                "max_length": max_length_s,
                "names": names,
            }
            index = self._library.with_encoder()
            hits = index.search_many([query], **keywords)[0]
            unread = _unread([text, *not_text, *([then] if then else [])], index.encoder)
            return self._found(hits, limit=limit, offset=offset, unread=unread)

        return await in_thread(context, work)

    async def similar(
        self,
        context: Context[Any, Any],
        video_id: VideoIdArgument,
        at_s: AtArgument,
        folder: FolderArgument = None,
        kind: KindArgument = None,
        group: GroupArgument = "video",
        limit: LimitArgument = 10,
        offset: OffsetArgument = 0,
    ) -> FoundMoments:
        """Find moments that look like a given moment of a video, or like a photo.

        Use it after `search_moments`, to find more of what one result shows. Give best_s of that result as at_s.
        """

        def work() -> FoundMoments:
            record = self._library.record(video_id)
            keywords: SearchKeywords = {
                "top": limit + 1,
                "offset": offset,
                "group": group,
                "folder": self._library.folder(folder),
                "kind": kind,
            }
            at = 0.0 if record.kind == "photo" else at_s
            hits = self._library.with_encoder().similar(record.path, at, **keywords)
            return self._found(hits, limit=limit, offset=offset)

        return await in_thread(context, work)

    async def scenes(
        self,
        context: Context[Any, Any],
        video_id: VideoIdArgument,
        limit: Annotated[int, Field(ge=1, le=500, description="most scenes")] = 200,
        offset: OffsetArgument = 0,
    ) -> SceneList:
        """List the scenes of one video with start and end in seconds.

        Use it to describe how a video is built, or to choose spans along its cuts. Each scene has best_s, the time of a
        frame that stands for it, for `get_frame`.
        """

        def work() -> SceneList:
            record = self._library.record(video_id)
            found = self._library.index.scenes(record.path)
            following = offset + limit if offset + limit < len(found) else None
            page = [SceneEntry.of(scene) for scene in found[offset : offset + limit]]
            return SceneList(video=VideoEntry.of(record), scenes=page, total=len(found), next_offset=following)

        return await in_thread(context, work)

    async def names(self, context: Context[Any, Any]) -> NameList:
        """List the taught names: people, animals, places and things that were taught by images.

        Use it to learn which names `find_name` and `search_moments` know.
        """

        def work() -> NameList:
            return NameList(names=[NameEntry.of(info) for info in self._library.index.names.list()])

        return await in_thread(context, work)

    async def find_name(
        self,
        context: Context[Any, Any],
        name: Annotated[str, Field(description="a taught name, in any case")],
        video_id: Annotated[str | None, Field(description="only in this video")] = None,
        by_time: Annotated[bool, Field(description="in the order of path and time, not the best first")] = False,
        limit: LimitArgument = 20,
        offset: OffsetArgument = 0,
    ) -> FoundMoments:
        """Find all spans in which a taught name is present, by its images alone.

        Use it for "where is Rex?". For a name together with an action ("Rex swims"), use `search_moments`. The score is
        the probability of the name in the span, 0 to 1.
        """

        def work() -> FoundMoments:
            library = self._library
            hits = list(library.with_encoder().find(name, by_time=by_time))
            if video_id is not None:
                wanted = library.record(video_id).video_id
                hits = [hit for hit in hits if hit.video_id == wanted]
            return self._found(hits[offset : offset + limit + 1], limit=limit, offset=offset)

        return await in_thread(context, work)

    async def videos(
        self,
        context: Context[Any, Any],
        name_contains: Annotated[str | None, Field(description="text in the path or file name, in any case")] = None,
        folder: FolderArgument = None,
        kind: KindArgument = None,
        limit: LimitArgument = 50,
        offset: OffsetArgument = 0,
    ) -> VideoList:
        """List indexed videos and photos with their ids, by file name and folder.

        Use it when a person names a file or a folder. To search by what is seen, use `search_moments`.
        """

        def work() -> VideoList:
            return self._library.videos(
                name_contains=name_contains, folder=folder, kind=kind, offset=offset, limit=limit
            )

        return await in_thread(context, work)

    async def library(self, context: Context[Any, Any]) -> LibraryContents:
        """Describe the library: number of videos and photos, length, folders, taught names.

        Use it once at the start, to learn what can be searched and which folders can be filters.
        """
        return await in_thread(context, self._library.contents)

    async def get_frame(
        self,
        context: Context[Any, Any],
        video_id: VideoIdArgument,
        at_s: AtArgument,
        width: Annotated[int, Field(ge=64, le=1568, description="largest width and height in pixels")] = 512,
    ) -> Annotated[CallToolResult, FrameFacts]:
        """Show the frame of a video at a time, or a photo, as a JPEG image.

        Use it to check what a result really shows before you state it. Give best_s of a result as at_s.
        """
        facts, jpeg = await in_thread(context, lambda: self._frame(video_id, at_s, width=width))
        return CallToolResult(
            content=[
                TextContent(type="text", text=f"{facts.name} at {facts.timecode}"),
                ImageContent(type="image", data=base64.b64encode(jpeg).decode("ascii"), mime_type="image/jpeg"),
            ],
            structured_content=facts.model_dump(),
        )

    async def export_timeline(
        self,
        context: Context[Any, Any],
        spans: SpansArgument,
        form: Annotated[TextForm, Field(description="edl, fcp7 (XML), fcpxml, otio or csv")] = "edl",
        title: Annotated[str, Field(description="name of the timeline")] = "moments",
        handles_s: HandlesArgument = 0.0,
    ) -> TimelineText:
        """Write spans of videos as a timeline for video editors, and return its text; nothing is written to disk.

        Use it when a person wants to go on in an editor: edl (most editors), fcp7 (Premiere, DaVinci Resolve), fcpxml
        (Final Cut Pro), otio (OpenTimelineIO), csv (tables). In and out points are whole frames of each file.
        """
        return await in_thread(
            context, lambda: timeline_text(self._library, spans, form, title=title, handles_s=handles_s)
        )

    def _found(self, hits: list[Hit], *, limit: int, offset: int, unread: str = "") -> FoundMoments:
        """Convert one page of hits; one hit more than the limit tells that there are more."""
        ids = self._library.ids() if any(hit.near_copies or hit.also_at for hit in hits[:limit]) else {}
        moments = [FoundMoment.of(hit, ids) for hit in hits[:limit]]
        strong = sum(moment.strong for moment in moments)
        if not moments:
            note = "nothing was found: use other words, or fewer filters"
        elif not strong:
            note = "none of these is a good hit: look at them with get_frame, or use other words"
        else:
            note = "get_frame shows a moment, similar finds more like it, export_timeline makes a list for an editor"
        following = offset + limit if len(hits) > limit else None
        return FoundMoments(moments=moments, strong=strong, next_offset=following, note=f"{unread}{note}")

    def _frame(self, video_id: str, at_s: float, *, width: int) -> tuple[FrameFacts, bytes]:
        """Decode a frame, and encode it as JPEG."""
        record = self._library.record(video_id)
        photo = record.kind == "photo"
        if not photo and at_s > record.duration_s + _AFTER_END_S:
            raise QueryError(
                f"{at_s:g} s is outside {path_text(record.path)}: give a time from 0 to {record.duration_s:g} s"
            )
        side_px = max(1, min(width, max(record.width, record.height)))
        image = next(thumbnails([(record.path, 0.0 if photo else at_s, record.kind)], size=(side_px, side_px)))
        if not isinstance(image, Image.Image):
            away = "" if record.path.exists() else "; its file is gone, or its disk is not connected"
            raise DataError(f"no frame: {image}{away}") from image
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=_JPEG_QUALITY)
        shown_s = 0.0 if photo else round(float(at_s), 3)
        facts = FrameFacts(
            video_id=record.video_id,
            name=path_text(type(record.path)(record.path.name)),
            kind=record.kind,
            at_s=shown_s,
            timecode=timecode(shown_s),
            width=image.width,
            height=image.height,
        )
        return facts, encoded.getvalue()


def _unread(texts: list[str], encoder: Encoder) -> str:
    """Name the texts that the model reads in part, or not at all: other words would find more."""
    tokenizer = tokenizer_of(encoder)
    remarks = [(text, tokenizer.remark(text)) for text in texts] if tokenizer is not None else []
    return "".join(f"the text {text!r} {remark}; " for text, remark in remarks if remark)
