"""Settings that several parts share, and the values of options: one frozen dataclass a concern.

`Settings` holds what a person may set for a run: defaults < TOML < environment < flags. What a single part reads has
its defaults there; training has settings of its own (`impart.train.settings`). A file has one table a concern::

    [decode]
    fps = 2

    [index]
    cut_threshold = 0.6

The same value from the environment is `IMPART_DECODE_FPS=2`; a flag of the command line wins over both. Settings that
shape an artefact are saved in its manifest.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from impart.errors import ConfigError

__all__ = [
    "Around",
    "By",
    "CaptionField",
    "DecodeSettings",
    "EncoderSettings",
    "EvaluateSettings",
    "Features",
    "Fit",
    "FixedPrompts",
    "Group",
    "IndexKind",
    "IndexSettings",
    "Prompts",
    "RamSettings",
    "SearchSettings",
    "SelectionWay",
    "Settings",
    "Storage",
    "SweepSettings",
    "VanillaSettings",
]

# Values that options of the command line take. They stand here because the command line must not import what uses them.
Around: TypeAlias = Literal["set", "usual", "paper"]
By: TypeAlias = Literal["mean", "moment"]
CaptionField: TypeAlias = Literal["title", "description", "usertags"]
Features: TypeAlias = Literal["embedding", "retrieval", "both"]
Fit: TypeAlias = Literal["squash", "crop"]
FixedPrompts: TypeAlias = Literal["ensemble", "single"]
Group: TypeAlias = Literal["video", "scene", "frame"]
IndexKind: TypeAlias = Literal["auto", "exact", "hnsw", "ivf"]
Prompts: TypeAlias = Literal["ensemble", "single", "set"]
SelectionWay: TypeAlias = Literal["random", "class", "cluster", "coverage", "agreement", "dedup"]
Storage: TypeAlias = Literal["float16", "float32"]

_SAID = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Which model, and how hard it may work.

    Attributes:
        model: id for `load_encoder`.
        threads: CPU threads of ONNX Runtime; 0 = one a core.
        batch: images in one forward pass.
    """

    model: str = "mini"
    threads: int = 0
    batch: int = 16


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How encoders are measured.

    Attributes:
        near_duplicate: cosine of retrieval embeddings from which a reference shows a test image and is left out
            (measured: `impart.evaluate.contamination`).
        bootstrap: draws behind an interval.
        batch: images in one forward pass.
    """

    near_duplicate: float = 0.93
    bootstrap: int = 1000
    batch: int = 32


@dataclass(frozen=True, kw_only=True)
class VanillaSettings:
    """RA-CLIP Vanilla (IMPART, eq. 1) and its weighted, gated form.

    Attributes:
        k: pairs retrieved for an image.
        w_img: weight of the mean of the retrieved image embeddings.
        w_txt: weight of the mean of the retrieved text embeddings.
        tau: neighbours are weighted by softmax(similarity / tau); 0 = the paper's uniform mean.
        floor: neighbours that stand less than this above random images (in standard deviations, see
            `impart.retrieval.znorm`) are dropped; an image whose neighbours are all dropped keeps its own embedding.
            0 = keep all.
        ramp: the blend grows from nothing to full while the best neighbour's z-score rises from `floor` to
            `floor + ramp`; 0 = full from the floor on.
        target: no more of the texts is added than brings the embedding to this cosine with them, so that what the model
            knows already is not said twice; 0 = no bound.
    """

    k: int = 8
    w_img: float = 0.5
    w_txt: float = 0.05
    tau: float = 0.0
    floor: float = 0.0
    ramp: float = 0.0
    target: float = 0.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"vanilla.k is {self.k}: at least one pair must be retrieved")
        if self.tau < 0:
            raise ConfigError(f"vanilla.tau is {self.tau}: use 0 for the uniform mean, or a positive temperature")
        if self.floor < 0:
            raise ConfigError(f"vanilla.floor is {self.floor}: use 0 to keep all, or standard deviations above chance")
        if self.ramp < 0:
            raise ConfigError(f"vanilla.ramp is {self.ramp}: use 0 for a hard gate, or a positive width")
        if not 0 <= self.target < 1:
            raise ConfigError(f"vanilla.target is {self.target}: use 0 for no bound, or a cosine below 1")


@dataclass(frozen=True, kw_only=True)
class RamSettings:
    """The retrieval-augmented module that learns (`impart.blending.ram`).

    Attributes:
        form: `paper` (RA-CLIP: two branches of cross-attention), or `vanilla`, which starts exactly at RA-CLIP Vanilla.
        layers: L of each branch.
        heads: of the attention; must divide the embedding width.
        k: pairs retrieved for an image.
        dropout: of the attention's shares, while training.
        norm: what a branch gives is added as it is (`none`, RA-CLIP) or at unit length (`l2`, IMPART). Form `paper`.
        gate: multiply each branch with a learned number that starts at zero, so that training starts at the plain
            encoder. Form `paper`.
        w_img, w_txt, tau, floor, ramp: where form `vanilla` starts, see `VanillaSettings`.
    """

    form: str = "paper"
    layers: int = 1
    heads: int = 8
    k: int = 8
    dropout: float = 0.0
    norm: str = "none"
    gate: bool = False
    w_img: float = 0.5
    w_txt: float = 1.0
    tau: float = 0.05
    floor: float = 4.0
    ramp: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in ("paper", "vanilla"):
            raise ConfigError(f"ram.form is {self.form!r}: use paper or vanilla")
        if self.norm not in ("none", "l2"):
            raise ConfigError(f"ram.norm is {self.norm!r}: use none or l2")
        if self.form == "vanilla" and (self.gate or self.norm != "none"):
            raise ConfigError(
                'ram.gate and ram.norm belong to form "paper": form "vanilla" starts at Vanilla\'s weights'
            )
        for name in ("layers", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"ram.{name} is {getattr(self, name)}: at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"ram.dropout is {self.dropout}: a share from 0 to below 1")
        try:
            self.start  # noqa: B018 - checks the rest
        except ConfigError as error:
            raise ConfigError(str(error).replace("vanilla.", "ram.", 1)) from error

    @property
    def start(self) -> VanillaSettings:
        """The Vanilla that form `vanilla` starts from."""
        return VanillaSettings(
            k=self.k, w_img=self.w_img, w_txt=self.w_txt, tau=self.tau, floor=self.floor, ramp=self.ramp
        )


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How frames are taken from a video.

    Attributes:
        fps: frames sampled per second of presentation time (IMPART 3.3: 4).
        reuse_threshold: a frame whose mean absolute difference (0..255) to the last encoded one is below this
            shares its embedding; 0 = encode every sampled frame.
        fit: how a frame becomes the square that an image tower sees: `squash` squeezes all of it in, `crop` leaves
            that to the encoder, which mostly keeps the middle: 56% of a 16:9 frame.
        stall_s: a decoder that gives nothing for this long is stopped and its file reported.
        look_ahead: decoded frames held in memory while the encoder is busy.
        threads: CPU threads of the decoder; 0 = half the cores (the encoder wants some too).
    """

    fps: float = 4.0
    reuse_threshold: float = 2.0
    fit: Fit = "squash"
    stall_s: float = 60.0
    look_ahead: int = 128
    threads: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 240:
            raise ConfigError(f"decode.fps is {self.fps}: frames per second must be above 0 and at most 240")
        if self.reuse_threshold < 0:
            raise ConfigError(f"decode.reuse_threshold is {self.reuse_threshold}: use 0 to encode every frame")
        if self.fit not in get_args(Fit):
            raise ConfigError(f"decode.fit is {self.fit!r}: use {' or '.join(get_args(Fit))}")
        if self.look_ahead < 1:
            raise ConfigError(f"decode.look_ahead is {self.look_ahead}: at least one frame must be held")
        if self.stall_s <= 0:
            raise ConfigError(f"decode.stall_s is {self.stall_s}: a decoder needs some time to answer")


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """How a video index is kept.

    Attributes:
        cut_threshold: a new scene starts where the cosine of neighbouring segments' retrieval embeddings falls
            below this.
        precision: how vectors are stored: `float16`, or `float32` at twice the size.
        compact_every: videos committed between two looks at whether the tables are worth compacting.
    """

    cut_threshold: float = 0.55
    precision: str = "float16"
    compact_every: int = 64

    def __post_init__(self) -> None:
        if self.precision not in ("float16", "float32"):
            raise ConfigError(f"index.precision is {self.precision!r}: use float16 or float32")


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What a search returns unless asked otherwise.

    Attributes:
        top: hits returned.
        group: one hit a `video`, `scene` or `frame`.
        by: a video or scene is ranked by the `mean` of its frames (IMPART 3.3) or by its best `moment`.
        negative_weight: how much of the negative terms' mean is taken off the query (Rocchio's gamma).
        prompts: in which a text is said to the model; the mean of their embeddings is searched for
            (`impart.retrieval.prompts`). `["{}"]` = as typed.
        hub_correction: take off a video's score for a text what it gets from any text (`impart.retrieval.hubness`).
    """

    top: int = 10
    group: Group = "video"
    by: By = "mean"
    negative_weight: float = 0.5
    prompts: tuple[str, ...] = ("{}.", "a photo of {}.", "a picture of {}.")
    hub_correction: bool = True

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ConfigError(f"search.top is {self.top}: at least one hit")
        if self.group not in get_args(Group):
            raise ConfigError(f"search.group is {self.group!r}: use video, scene or frame")
        if self.by not in get_args(By):
            raise ConfigError(f"search.by is {self.by!r}: use mean or moment")
        if not self.prompts or any(prompt.count("{}") != 1 for prompt in self.prompts):
            raise ConfigError(f"search.prompts are {list(self.prompts)}: one or more, each with one {{}} for the text")


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """What `impart refset sweep` varies.

    Attributes:
        sizes: `10%` of the pairs, or `300` of them.
        ways: of choosing them, see `impart.refset.subsets`.
        corrupt: fractions of the captions that are exchanged at random.
        k, w_img, w_txt, tau: as in `VanillaSettings`.
        seeds: draws of everything random, from seed 0 on.
        grid: everything with everything, not one at a time.
    """

    sizes: tuple[str, ...] = ("1%", "3%", "10%", "30%", "100%")
    ways: tuple[str, ...] = get_args(SelectionWay)
    corrupt: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0)
    k: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    w_img: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0)
    w_txt: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
    tau: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2)
    seeds: int = 3
    grid: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a person may set for a run. How a reference set is blended (`VanillaSettings`) is kept with the set."""

    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    decode: DecodeSettings = field(default_factory=DecodeSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    search: SearchSettings = field(default_factory=SearchSettings)

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
        start: Settings | None = None,
    ) -> Settings:
        """Resolve settings: defaults < TOML file < `IMPART_<CONCERN>_<NAME>` < flags.

        Args:
            path: a TOML file with one table a concern, or None.
            start: what holds where nothing else speaks, such as an index's own settings; None = the defaults.
            environ: defaults to the process environment.
            flags: `{"decode.fps": 2.0}`; values of None are skipped.

        Raises:
            ConfigError: the file cannot be read, or a name or value is wrong.
        """
        tables: dict[str, Any] = {}
        if path is not None:
            try:
                tables = tomllib.loads(path.read_text(encoding="utf-8"))
            except OSError as error:
                raise ConfigError(f"cannot read settings file {path}: {error.strerror}") from error
            except tomllib.TOMLDecodeError as error:
                raise ConfigError(f"settings file {path} is not TOML: {error}") from error
        environ = os.environ if environ is None else environ
        flags = flags or {}
        concerns: dict[str, Any] = {}
        known = {item.name: item for item in dataclasses.fields(cls)}
        for name in tables:
            if name not in known:
                raise ConfigError(f"settings file {path}: unknown table [{name}]; there are {', '.join(known)}")
        for concern, item in known.items():
            kind: Any = item.default_factory
            table = tables.get(concern, {})
            names = {option.name: option for option in dataclasses.fields(kind)}
            for name in table:
                if name not in names:
                    raise ConfigError(f"settings file {path}: [{concern}] has no {name!r}; it has {', '.join(names)}")
            before = getattr(start or cls(), concern)
            values: dict[str, Any] = {}
            for name, option in names.items():
                value = table.get(name)
                value = environ.get(f"IMPART_{concern}_{name}".upper(), value)
                flag = flags.get(f"{concern}.{name}")
                value = value if flag is None else flag
                if value is not None:
                    values[name] = _convert(value, kind=type(option.default), name=f"{concern}.{name}")
            concerns[concern] = dataclasses.replace(before, **values)
        return cls(**concerns)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, as written to manifests."""
        return dataclasses.asdict(self)


def _convert(value: Any, *, kind: type, name: str) -> Any:
    if kind is bool:
        said = _SAID.get(str(value).lower())
        if said is None:
            raise ConfigError(f"setting {name} is {value!r}: use true or false")
        return said
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"setting {name} is {value!r}: expected {kind.__name__}") from error
