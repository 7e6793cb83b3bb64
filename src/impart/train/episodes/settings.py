"""Settings of mode `episodes`: size and content of an episode."""

from __future__ import annotations

from dataclasses import dataclass

from impart.errors import ConfigError

__all__ = ["EpisodeSettings"]


@dataclass(frozen=True, kw_only=True)
class EpisodeSettings:
    """Size and content of an episode.

    Attributes:
        concepts: candidates of an episode.
        shots: reference images per concept; each episode draws one of these numbers.
        queries: images to be named per concept, at most.
        least: concepts with fewer images are not used.
        made_up: share of the episodes with made-up names.
        absent: share of the episodes in which some, or all, of the concepts have no references.
        keep: weight of the squared norm of what is added to an image whose concept has no references.
        held_out: share of the concepts kept for validation.
        views: views of the images (`clean`, `crop0`, `small0`, ...); the references of an episode are in one of them.
        mixed: share of the episodes that draw another view for the queries.
        validation_episodes: episodes measured per number of shots.

    Raises:
        ConfigError: `made_up`, `absent`, `held_out` or `mixed` is no share, `least` or `concepts` is below 2, `queries`
            or a number of `shots` is below 1, or there are no `shots` or `views`.
    """

    concepts: int = 100
    shots: tuple[int, ...] = (1, 2, 3, 4, 8)
    queries: int = 4
    least: int = 4
    made_up: float = 0.7
    absent: float = 0.4
    keep: float = 0.3
    held_out: float = 0.25
    views: tuple[str, ...] = ("clean", "small0")
    mixed: float = 0.5
    validation_episodes: int = 4

    def __post_init__(self) -> None:
        for name in ("made_up", "absent", "held_out", "mixed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"episodes.{name} is {getattr(self, name)}: it is a share, from 0 to 1")
        if self.least < 2:
            raise ConfigError(f"episodes.least is {self.least}: it must be at least 2, a reference and a query")
        if self.concepts < 2 or self.queries < 1 or not self.shots or min(self.shots) < 1:
            raise ConfigError("episodes.concepts must be at least 2, queries and shots at least 1")
        if not self.views:
            raise ConfigError("episodes.views is empty: name one view at least, such as 'clean', the unchanged image")
