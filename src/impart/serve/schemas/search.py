"""Searches: what is asked, and hits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from impart.config import By, Group
from impart.serve.schemas.text import path_text
from impart.video.index.store import path_id
from impart.video.search.hits import Hit, Moment, NearCopy, Reason
from impart.video.search.query import WITHIN_S
from impart.video.search.spans.heat import Heat

__all__ = [
    "HeatOut",
    "HeatRequest",
    "HeatsOut",
    "HitOut",
    "MomentOut",
    "NearCopyOut",
    "ReasonOut",
    "SearchOut",
    "SearchRequest",
    "SimilarTo",
]

LONGEST_TEXT = 1000
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
VideoId = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class SimilarTo(BaseModel):
    """A moment of an indexed video, to search for more like it."""

    model_config = ConfigDict(extra="forbid")

    video_id: str
    at_s: float = Field(ge=0)


class SearchRequest(BaseModel):
    """A search: a text, an image, both, or a moment of a video; with filters."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"text": "a dog on a skateboard", "limit": 10},
                {"text": "a red car", "then": "a blue door", "within_s": 20, "group": "moment"},
                {"text": "at night", "not_text": ["a truck"], "kind": "video", "min_length_s": 60},
            ]
        },
    )

    text: Text | None = Field(None, description="What to find, in words; taught names are found in it.")
    image_id: str | None = Field(None, description="A query image that was uploaded before.", max_length=64)
    similar: SimilarTo | None = Field(None, description="Find more like this moment; then without text and image.")
    not_text: list[Text] = Field([], description="What must not be in it.", max_length=10)
    then: Text | None = Field(None, description="What must follow it in the same video.")
    within_s: float = Field(WITHIN_S, ge=0, le=86_400, description="With `then`: most seconds between the two.")
    group: Group = Field("video", description="One hit per video, moment, scene or frame.")
    by: By = Field("moment", description="What ranks videos: their best moment, mean, or best frame.")
    folder: str | None = Field(None, description="Only below this folder, a value of `/folders`.", max_length=4096)
    kind: Literal["video", "photo"] | None = None
    since: str | None = Field(None, description="Recorded since: `2024`, `2024-05`, `2024-05-01`.", max_length=40)
    until: str | None = Field(None, description="Recorded until, inclusive.", max_length=40)
    min_length_s: float | None = Field(None, ge=0, description="Only videos of at least this length.")
    max_length_s: float | None = Field(None, ge=0)
    min_score: float | None = Field(None, ge=-2, le=2)
    names: bool = Field(True, description="Whether taught names in the text are found by their images.")
    why: bool = Field(False, description="Whether each hit lists the reference pairs that were blended in.")
    limit: int = Field(24, ge=1, le=100, description="Most hits of this page.")
    cursor: str | None = Field(None, description="`next_cursor` of the page before.", max_length=512)


class MomentOut(BaseModel):
    """A span of the video of a hit."""

    start_s: float
    end_s: float
    score: float
    best_s: float

    @classmethod
    def of(cls, moment: Moment) -> MomentOut:
        """Make it from a moment of the library."""
        return cls(start_s=moment.start_s, end_s=moment.end_s, score=moment.score, best_s=moment.best_s)


class NearCopyOut(BaseModel):
    """A span of another video that shows the same as a hit."""

    video_id: str
    name: str
    path: str
    start_s: float
    end_s: float
    score: float
    kind: Literal["video", "photo"]

    @classmethod
    def of(cls, copy: NearCopy) -> NearCopyOut:
        """Make it from a near copy of the library."""
        return cls(
            video_id=path_id(copy.path),
            name=path_text(Path(copy.path.name)),
            path=path_text(copy.path),
            start_s=copy.start_s,
            end_s=copy.end_s,
            score=copy.score,
            kind=copy.kind,
        )


class ReasonOut(BaseModel):
    """A reference pair that was blended into a hit's best frame."""

    text: str
    source: str
    weight_img: float
    weight_txt: float = Field(description="Below zero where a pair of a solved set speaks against the name.")
    similarity: float | None = Field(description="Cosine of the retrieval embeddings; null = no longer known.")
    row: int = Field(description="Row of the pair in the reference set; see `/references/pairs/{row}.webp`.")

    @classmethod
    def of(cls, reason: Reason) -> ReasonOut:
        """Make it from a reason of the library."""
        return cls(
            text=reason.text,
            source=reason.source,
            weight_img=reason.weight_img,
            weight_txt=reason.weight_txt,
            similarity=None if reason.similarity != reason.similarity else reason.similarity,
            row=reason.row,
        )


class HitOut(BaseModel):
    """One result: the best moment of a video, and its further moments."""

    rank: int
    video_id: str
    name: str
    path: str = Field(description="To be shown; no route takes it as an input.")
    kind: Literal["video", "photo"]
    start_s: float
    end_s: float
    best_s: float = Field(description="Time of its best frame.")
    score: float = Field(description="A cosine; comparable within one search.")
    strong: bool = Field(description="Whether it is among the good hits; the page folds the rest.")
    scene_start_s: float
    scene_end_s: float
    video_s: float = Field(description="Length of the video.")
    recorded_at: float | None
    names: list[str] = Field(description="Taught names that raised its score.")
    steps: list[MomentOut] = Field(description="With `then`: the spans of the sequence.")
    moments: list[MomentOut] = Field(description="Further moments of the video, best first.")
    near_copies: list[NearCopyOut]
    also_at: list[str] = Field(description="Paths of files with the same content.")
    why: list[ReasonOut]

    @classmethod
    def of(cls, hit: Hit) -> HitOut:
        """Make it from a hit of the library."""
        same = (
            "rank", "video_id", "kind", "start_s", "end_s", "best_s", "score", "strong", "scene_start_s", "scene_end_s",
            "video_s", "recorded_at",
        )  # fmt: skip
        return cls(
            name=path_text(Path(hit.path.name)),
            path=path_text(hit.path),
            names=list(hit.names),
            steps=[MomentOut.of(one) for one in hit.steps],
            moments=[MomentOut.of(one) for one in hit.moments],
            near_copies=[NearCopyOut.of(one) for one in hit.near_copies],
            also_at=[path_text(one) for one in hit.also_at],
            why=[ReasonOut.of(one) for one in hit.why],
            **{name: getattr(hit, name) for name in same},
        )


class SearchOut(BaseModel):
    """One page of hits."""

    hits: list[HitOut]
    next_cursor: str | None = Field(description="Gives the next page; null = this is the last one.")
    strong: int = Field(description="How many of the hits so far, up to the end of this page, are good ones.")
    took_ms: float = Field(description="Time of the search in the server.")
    image_id: str | None = Field(None, description="Id of the uploaded query image, for further pages.")
    names: list[str] = Field([], description="Taught names that were found in the text.")


class HeatRequest(SearchRequest):
    """A search, and the videos in which it may light up."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"text": "a red car", "video_ids": ["00c0ffee00c0ffee"], "bins": 50}]},
    )

    video_ids: list[VideoId] = Field(description="Ids of videos, such as those of a page of hits.", max_length=100)
    bins: int = Field(100, ge=1, le=200, description="Bins per video; a photo has one.")


class HeatOut(BaseModel):
    """Heat of one video: where a search lights up."""

    video_id: str
    start_s: float = Field(description="Start of the first bin.")
    step_s: float = Field(description="Length of a bin.")
    bins: list[float] = Field(description="The best frame of each bin: 0 = as usual in the index, 1 = the best frame.")
    best_s: float = Field(description="Time of the best frame.")

    @classmethod
    def of(cls, heat: Heat) -> HeatOut:
        """Make it from the heat of the library."""
        return cls(
            video_id=heat.video_id,
            start_s=heat.start_s,
            step_s=heat.step_s,
            bins=list(heat.bins),
            best_s=heat.best_s,
        )


class HeatsOut(BaseModel):
    """Heat of videos, in the order asked for; without those that are not in the index."""

    heats: list[HeatOut]
