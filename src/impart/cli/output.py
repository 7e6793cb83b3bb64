"""Output: hits of a search as table, json, jsonl or csv (one JSON object per query), and settings in words.

A file name may contain bytes that are no text. In tables and CSV such a byte is printed as `\\udcXX`, XX in hex digits,
by the error handler that `main` sets. In JSON it is the escape `\\udcXX`, which Python's `json` and `os.fsencode` turn
into the name again.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impart.video.search.hits import Hit, Moment, NearCopy

__all__ = ["Answer", "Format", "clock", "print_answers", "print_json", "settings_in_words"]

_LONGEST_TITLE = 80
_LISTS = ("names", "steps", "moments", "near_copies", "also_at")
_NAMES = ("rank", "path", "start_s", "end_s", "timecode", "score", "strong", "best_s", "scene_start_s", "scene_end_s")
_FEW = 3  # hits shown where none is strong
_WHY = "+ reference pair (- against the name): weight in the moment's vector (own weight 1), similarity"


class Format(StrEnum):
    """Format of the output."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One query and its hits.

    Attributes:
        query: the text; without a text, the path of the image.
        hits: best first.
        extra: further parts of the query for JSON, such as the image or negative terms.
        everything: show all hits in a table; else those up to the last strong one.
    """

    query: str
    hits: Sequence[Hit]
    extra: dict[str, Any]
    everything: bool = False

    @property
    def shown(self) -> Sequence[Hit]:
        """The hits of a table; a few where none is strong."""
        last = max((number for number, hit in enumerate(self.hits, 1) if hit.strong), default=_FEW)
        return self.hits if self.everything else self.hits[:last]

    @property
    def title(self) -> str:
        """The query in words, with what it is joined with.

        >>> Answer(query="a dog", hits=[], extra={"with": "a ball", "then": ["a cat"], "not": ["snow"]}).title
        'a dog, not snow, with a ball, then a cat'
        """
        parts = [self.query]
        for word in ("image", "not", "with", "then", "before", "after"):
            given = self.extra.get(word, [])
            parts += [f"{word} {text}" for text in ([given] if isinstance(given, str) else given)]
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Convert to the JSON object of a query."""
        return {"query": self.query, **self.extra, "hits": [_hit_dict(hit) for hit in self.hits]}


def print_answers(answers: Iterable[Answer], form: Format, *, why: bool) -> int:
    """Print each answer as soon as it is there.

    Returns:
        The number of hits.
    """
    count = 0
    if form is Format.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        names = [*_NAMES, "video_s", "kind", "recorded_at", *(["why"] if why else []), *_LISTS]
        writer.writerow(["query", *names])
        for answer in answers:
            count += len(answer.hits)
            for hit in answer.hits:
                row = {"why": [], "also_at": [], **_hit_dict(hit)}
                row |= {name: json.dumps(row[name], ensure_ascii=False) if row[name] else "" for name in _LISTS}
                row["why"] = json.dumps(row["why"], ensure_ascii=False)
                writer.writerow([answer.query, *(row[name] for name in names)])
        return count
    for answer in answers:
        count += len(answer.hits)
        if form is Format.json:
            print_json(answer.as_dict(), indent=2)
        elif form is Format.jsonl:
            print_json(answer.as_dict())
        else:
            _print_table(answer, why=why)
    return count


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON that any output can take: what its encoding lacks is escaped."""
    utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not utf8, indent=indent, default=str)
    print(re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text))


def settings_in_words(values: Mapping[str, Any]) -> str:
    """Format the settings of a blend.

    >>> settings_in_words({"k": 8, "w_img": 0.50, "form": "paper", "gate": False})
    'k 8, w_img 0.5, form paper, gate off'
    """
    words = []
    for name, value in values.items():
        if isinstance(value, bool):
            value = "on" if value else "off"
        words.append(f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}")
    return ", ".join(words)


def _hit_dict(hit: Hit) -> dict[str, Any]:
    row: dict[str, Any] = {
        "rank": hit.rank,
        "path": str(hit.path),
        "start_s": round(hit.start_s, 3),
        "end_s": round(hit.end_s, 3),
        "timecode": hit.timecode,
        "score": round(hit.score, 6),
        "strong": hit.strong,
        "best_s": round(hit.best_s, 3),
        "scene_start_s": round(hit.scene_start_s, 3),
        "scene_end_s": round(hit.scene_end_s, 3),
        "video_s": round(hit.video_s, 3),
        "kind": hit.kind,
        "recorded_at": None if hit.recorded_at is None else _iso(hit.recorded_at),
        "names": list(hit.names),
        "steps": [{name: round(value, 6) for name, value in vars(step).items()} for step in hit.steps],
        "moments": [{name: round(value, 6) for name, value in vars(moment).items()} for moment in hit.moments],
        "near_copies": [
            {
                "path": str(copy.path),
                "start_s": round(copy.start_s, 3),
                "end_s": round(copy.end_s, 3),
                "score": round(copy.score, 6),
            }
            for copy in hit.near_copies
        ],
    }
    if hit.also_at:
        row["also_at"] = [str(path) for path in hit.also_at]
    if hit.why:
        row["why"] = [
            {
                "text": reason.text,
                "source": reason.source,
                "weight_img": round(reason.weight_img, 6),
                "weight_txt": round(reason.weight_txt, 6),
                "similarity": round(reason.similarity, 6) if math.isfinite(reason.similarity) else None,
            }
            for reason in hit.why
        ]
    return row


def _iso(time_s: float) -> str:
    """Format a Unix time as local time with its offset."""
    return datetime.fromtimestamp(time_s).astimezone().isoformat(timespec="seconds")


def _print_table(answer: Answer, *, why: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 160
    if not answer.hits:
        console.print(f"no hits for [bold]{escape(answer.title)}[/bold]")
        return
    query = answer.title if len(answer.title) <= _LONGEST_TITLE else f"{answer.title[: _LONGEST_TITLE - 3]}..."
    console.print(f"[bold]{escape(query)}[/bold]", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("#", justify="right", style="dim")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("start - end", justify="right", style="cyan", no_wrap=True)
    table.add_column("length", justify="right", no_wrap=True)
    table.add_column("video", overflow="fold")
    for hit in answer.shown:
        path = escape(_short(Path(hit.path)) + (f"  [{', '.join(hit.names)}]" if hit.names else ""))
        place = ("photo", "") if hit.kind == "photo" else (_span(hit), f"{hit.length_s:.1f} s")
        table.add_row(str(hit.rank), f"{hit.score:.3f}", *place, path)
        for number, step in enumerate(hit.steps if len(hit.steps) > 1 else (), 1):
            table.add_row("", "", f"[dim]{_span(step)}[/dim]", "", f"[dim]  part {number}[/dim]")
        for moment in hit.moments:
            length = f"[dim]{moment.end_s - moment.start_s:.1f} s[/dim]"
            score = f"[dim]{moment.score:.3f}[/dim]"
            table.add_row("", score, f"[dim]{_span(moment)}[/dim]", length, "[dim]  further span[/dim]")
        for near in hit.near_copies:
            at = "photo" if near.kind == "photo" else _span(near)
            table.add_row("", "", f"[dim]{at}[/dim]", "", f"[dim]same in {escape(_short(near.path))}[/dim]")
        for copy in hit.also_at:
            table.add_row("", "", "", "", f"[dim]also at {escape(_short(copy))}[/dim]")
        if why:
            for reason in hit.why:
                parts = (("image", reason.weight_img), ("text", reason.weight_txt))
                weights = [f"{part} {weight:.3f}" for part, weight in parts if f"{abs(weight):.3f}" != "0.000"]
                sign = "+" if reason.weight_img + reason.weight_txt >= 0 else "-"
                note = f"  {sign} {reason.text}  ({', '.join([*weights, f'similarity {reason.similarity:.2f}'])})"
                table.add_row("", "", "", "", f"[dim]{escape(note)}[/dim]")
            if not hit.why:
                table.add_row("", "", "", "", "[dim]  no reference pair was blended in[/dim]")
    with console.capture() as drawn:
        console.print(table)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))
    if below := len(answer.hits) - len(answer.shown):
        console.print(f"[dim]{below} more below: --all[/dim]", soft_wrap=True)
    if why and any(hit.why for hit in answer.shown):
        console.print(f"[dim]{_WHY}[/dim]", soft_wrap=True)


def clock(seconds: float) -> str:
    """Format seconds to a tenth, without leading zeros.

    >>> clock(62.04), clock(3723.97)
    ('1:02.0', '1:02:04.0')
    """
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36_000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def _span(span: Hit | Moment | NearCopy) -> str:
    return f"{clock(span.start_s)} - {clock(span.end_s)}"


def _short(path: Path) -> str:
    """Shorten a path below the working folder to a relative one."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
