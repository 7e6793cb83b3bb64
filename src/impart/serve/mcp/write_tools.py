"""The MCP tools that write: teach, rename and remove names, and save timelines. Listed only where it is allowed."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from impart.errors import QueryError
from impart.serve.mcp.calls import in_thread
from impart.serve.mcp.library import Library
from impart.serve.mcp.read_tools import HandlesArgument, SpansArgument
from impart.serve.mcp.results import NameTaught, TimelineSaved
from impart.serve.mcp.timelines import TextForm, save_timeline
from impart.serve.schemas.text import path_text

__all__ = ["TaughtMoment", "WriteTools"]

_FAILED = "{source}: {reason}"


class TaughtMoment(BaseModel):
    """A moment of a video, or a photo, that shows what a name means."""

    video_id: Annotated[str, Field(description="id of the video")]
    at_s: Annotated[float, Field(ge=0, description="seconds from the start of the video; 0 for a photo")] = 0.0


class WriteTools:
    """Tools that write to the index, or to the folder for exports.

    Args:
        library: what they change.
    """

    def __init__(self, library: Library) -> None:
        self._library = library

    async def teach_name(
        self,
        context: Context[Any, Any],
        name: Annotated[str, Field(description="the name; a known one gets further images")],
        moments: Annotated[
            list[TaughtMoment], Field(min_length=1, max_length=50, description="moments that show it; three are good")
        ],
    ) -> NameTaught:
        """Teach a name of a person, an animal, a place or a thing by moments that show it.

        Use it when a person says who or what a result shows. The images are copied into the index; searches know the
        name at once. Ask the person first.
        """

        def work() -> NameTaught:
            images: list[str] = []
            for moment in moments:
                record = self._library.record(moment.video_id)
                if record.kind == "photo":
                    images.append(str(record.path))
                    continue
                if moment.at_s > record.duration_s:
                    raise QueryError(
                        f"{moment.at_s:g} s is outside {path_text(record.path)}: it is {record.duration_s:g} s long"
                    )
                images.append(f"{record.path}@{moment.at_s!r}")
            added = self._library.with_encoder().names.add(name, images)
            known = next(iter([*added.added, *(one for one, _ in added.known)]), name)
            return NameTaught(
                name=known,
                images=self._images(known),
                added=sum(added.added.values()),
                failed=[_FAILED.format(source=source, reason=reason) for source, reason in added.failed],
                notes=[*added.notes, *(remark for report in added.reports for remark in report.remarks)],
            )

        return await in_thread(context, work)

    async def rename_name(
        self,
        context: Context[Any, Any],
        name: Annotated[str, Field(description="a taught name")],
        new_name: Annotated[str, Field(description="its new spelling")],
    ) -> NameTaught:
        """Give a taught name another spelling. Its images stay."""

        def work() -> NameTaught:
            renamed = self._library.with_encoder().names.rename(name, new_name)
            return NameTaught(name=renamed, images=self._images(renamed))

        return await in_thread(context, work)

    async def remove_name(
        self, context: Context[Any, Any], name: Annotated[str, Field(description="a taught name")]
    ) -> NameTaught:
        """Remove a taught name with its images from the index. Videos and photos are not touched.

        It cannot be undone: ask the person first.
        """

        def work() -> NameTaught:
            self._library.index.names.remove(name)
            return NameTaught(name=name, images=0)

        return await in_thread(context, work)

    async def save_timeline(
        self,
        context: Context[Any, Any],
        spans: SpansArgument,
        file_name: Annotated[str, Field(description="name of the new file, without a folder")],
        form: Annotated[TextForm, Field(description="edl, fcp7 (XML), fcpxml, otio or csv")] = "edl",
        handles_s: HandlesArgument = 0.0,
    ) -> TimelineSaved:
        """Save spans of videos as a timeline file in the folder for exports. A file that exists is not replaced."""
        return await in_thread(
            context,
            lambda: save_timeline(self._library, spans, form, file_name=file_name, handles_s=handles_s),
        )

    def _images(self, name: str) -> int:
        """Count the images of a name."""
        folded = name.casefold()
        return next((info.images for info in self._library.index.names.list() if info.name.casefold() == folded), 0)
