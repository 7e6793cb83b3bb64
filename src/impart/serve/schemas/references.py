"""Reference sets: those that may be put in force, and the pairs that were blended into a moment."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from impart.serve.library.reference_sets import NONE, KnownSets
from impart.serve.schemas.search import ReasonOut

__all__ = ["PairOut", "ReferenceSetOut", "ReferencesOut", "SwitchIn", "WhyOut"]


class ReferenceSetOut(BaseModel):
    """A reference set that may be put in force."""

    id: str = Field(description="Of the set; `none` = no reference set.", examples=["3f1b2c4d5e6f7081", NONE])
    name: str
    pairs: int
    origin: Literal["none", "index", "bundled", "folder"] = Field(
        description="`bundled` comes with the model, `folder` was given to `impart serve --refset`, `index` is the set "
        "in force that is in no other place."
    )
    settings: str = Field(description="The settings of the blend, in words.")
    current: bool = Field(description="Whether it is in force.")


class FailedSetOut(BaseModel):
    """A folder whose reference set cannot be used."""

    name: str
    reason: str


class ReferencesOut(BaseModel):
    """The reference sets of the server."""

    sets: list[ReferenceSetOut]
    current: str = Field(description="Id of the set in force.")
    switching_to: str | None = Field(description="Id of the set that is being put in force; null = none is.")
    problem: str | None = Field(description="Why the last switch failed.")
    left_out: list[FailedSetOut] = Field(description="Folders that cannot be used, with reasons.")

    @classmethod
    def of(cls, known: KnownSets, *, switching_to: str | None, problem: str | None) -> ReferencesOut:
        """Make it from the sets of a server."""
        nothing = ReferenceSetOut(
            id=NONE,
            name="no reference set",
            pairs=0,
            origin="none",
            settings="nothing is blended in",
            current=known.current == NONE,
        )
        sets = [
            ReferenceSetOut(
                id=one.id,
                name=one.name,
                pairs=one.pairs,
                origin=one.origin,
                settings=known.settings if one.id == known.current else one.settings,
                current=one.id == known.current,
            )
            for one in known.sets.values()
        ]
        return cls(
            sets=[*sets, nothing],
            current=known.current,
            switching_to=switching_to,
            problem=problem,
            left_out=[FailedSetOut(name=name, reason=reason) for name, reason in known.left_out],
        )


class SwitchIn(BaseModel):
    """The reference set to put in force."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"id": "none"}]})

    id: str = Field(max_length=64, description="Id of the set, of `/references`.")
    discard: bool = Field(
        False, description="Whether the set in force, or its trained RAM, may be lost where only the index has it."
    )


class PairOut(ReasonOut):
    """A reference pair that is blended into a moment."""

    image: bool = Field(description="Whether `/references/pairs/{row}.webp` may show its image.")


class WhyOut(BaseModel):
    """The reference pairs that are blended into a moment of a video."""

    video_id: str
    at_s: float
    references: str | None = Field(description="Name of the set in force; null without one.")
    blending: str | None = Field(description="How it is blended: `vanilla`, `solved` or `ram`; null without a set.")
    pairs: list[PairOut] = Field(description="Largest weight first; empty where nothing is blended in.")
