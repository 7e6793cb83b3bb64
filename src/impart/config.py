"""Settings that several parts share, and the values of options: one frozen dataclass per concern.

`Settings` holds what a person may set for a run: defaults < TOML < environment < flags. Settings that only one part
reads have their defaults in that part; training has its own (`impart.train.settings`). A file has one table per
concern::

    [decode]
    fps = 2

    [index]
    cut_threshold = 0.6

`IMPART_DECODE_FPS=2` in the environment sets the same value; a flag of the command line has priority over both.
Settings that shape an artefact are saved in its manifest.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from impart.errors import ConfigError
from impart.validation import check_names, check_value, closest, read_toml, type_hints

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "REQUESTS_PER_S",
    "Around",
    "By",
    "CaptionField",
    "DecodeSettings",
    "Device",
    "EncoderSettings",
    "EngineName",
    "EvaluateSettings",
    "Features",
    "FewShotMethod",
    "FewShotTuning",
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
    "SolvedSettings",
    "VanillaSettings",
]

# Values of command-line options. They are defined here so that `--help` imports nothing heavy.
Around: TypeAlias = Literal["set", "usual", "paper"]
By: TypeAlias = Literal["moment", "mean", "frame"]
EngineName: TypeAlias = Literal["local", "ray"]
CaptionField: TypeAlias = Literal["title", "description", "usertags"]
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Features: TypeAlias = Literal["embedding", "retrieval", "both"]
FewShotMethod: TypeAlias = Literal[
    "tip-adapter",
    "ape",
    "gda",
    "timo",
    "proker",
    "prototypes",
    "ridge",
    "solved",
    "solved-closed",
    "transclip",
    "vanilla",
    "vanilla-closed",
]
FewShotTuning: TypeAlias = Literal["none", "folds", "few", "full"]
Fit: TypeAlias = Literal["squash", "crop"]
FixedPrompts: TypeAlias = Literal["ensemble", "single"]
Group: TypeAlias = Literal["video", "moment", "scene", "frame"]
IndexKind: TypeAlias = Literal["auto", "exact", "ivfpq", "hnsw", "ivf"]
Prompts: TypeAlias = Literal["ensemble", "single", "set"]
SelectionWay: TypeAlias = Literal["random", "class", "cluster", "coverage", "agreement", "dedup"]
Storage: TypeAlias = Literal["float16", "float32"]

RETIRED = {"search.phrasings": "search.prompts"}
"""Settings that were renamed: old name -> new name. The old names are refused."""

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8765
"""Address and port of `impart serve`."""
REQUESTS_PER_S = 500.0
"""Requests that `impart serve` answers per client and second, in the mean."""

VARIABLES = ("IMPART_INDEX", "IMPART_CONFIG", "IMPART_CACHE", "IMPART_DATA", "IMPART_FETCH_LIMITS")
"""Environment variables that are no setting: default of --index and --config, folders, and one for a worker."""


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Model, device, threads and batch size.

    Attributes:
        model: id for `load_encoder`.
        device: `auto` (CUDA where it is there, else the CPU), `cpu` or `cuda`.
        threads: CPU threads of ONNX Runtime; 0 = one per core.
        batch: images per forward pass, on every device.
    """

    model: str = "mini"
    device: Device = "auto"
    threads: int = 0
    batch: int = 16

    def __post_init__(self) -> None:
        if self.device not in get_args(Device):
            raise ConfigError(f"encoder.device is {self.device!r}: use {_either(Device)}")
        if self.threads < 0:
            raise ConfigError(f"encoder.threads is {self.threads}: use 0 for one per core, or a number of threads")
        if self.batch < 1:
            raise ConfigError(f"encoder.batch is {self.batch}: it must be at least 1 image")

    @property
    def options(self) -> dict[str, Any]:
        """Options of `load_encoder` that differ from its defaults.

        >>> EncoderSettings(threads=2).options, EncoderSettings(device="cuda").options
        ({'threads': 2}, {'device': 'cuda'})
        """
        threads = {"threads": self.threads} if self.threads else {}
        return threads if self.device == "auto" else {**threads, "device": self.device}


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Settings of evaluation.

    Attributes:
        near_duplicate: a reference with at least this cosine of retrieval embeddings to a test image counts as
            contamination and is left out; 0 = the bound of the encoder (`impart.retrieval.near_duplicates`).
        bootstrap: replicates per interval.
        batch: images per forward pass.
    """

    near_duplicate: float = 0.0
    bootstrap: int = 1000
    batch: int = 32


@dataclass(frozen=True, kw_only=True)
class VanillaSettings:
    """RA-CLIP Vanilla (IMPART, eq. 1) and its weighted, gated form.

    Attributes:
        k: neighbours per image.
        w_img: weight of the mean of the neighbours' image embeddings.
        w_txt: weight of the mean of the neighbours' text embeddings.
        tau: neighbours are weighted by softmax(similarity / tau); 0 = the paper's uniform mean.
        floor: neighbours with a lower z-score (`impart.retrieval.znorm`) are dropped. An image without neighbours keeps
            its base embedding. 0 = keep all.
        ramp: the gate opens from 0 to 1 while the best neighbour's z-score rises from `floor` to `floor + ramp`; 0 =
            fully open from `floor` on.
        target: text embeddings are added only up to this cosine with them, so that an image the model already names
            right is changed little; 0 = no bound.
    """

    k: int = 8
    w_img: float = 0.5
    w_txt: float = 0.05
    tau: float = 0.0
    floor: float = 0.0
    ramp: float = 0.0
    target: float = 0.0

    def __post_init__(self) -> None:
        _check_finite(self, "vanilla")
        if self.k < 1:
            raise ConfigError(f"vanilla.k is {self.k}: at least one pair must be retrieved")
        if self.tau < 0:
            raise ConfigError(f"vanilla.tau is {self.tau}: use 0 for the uniform mean, or a positive temperature")
        if self.floor < 0:
            raise ConfigError(f"vanilla.floor is {self.floor}: use 0 to keep all, or a z-score")
        if self.ramp < 0:
            raise ConfigError(f"vanilla.ramp is {self.ramp}: use 0 for a hard gate, or a positive width")
        if not 0 <= self.target < 1:
            raise ConfigError(f"vanilla.target is {self.target}: use 0 for no bound, or a cosine below 1")

    @property
    def off(self) -> bool:
        """Whether nothing is added."""
        return not (self.w_img or self.w_txt)


@dataclass(frozen=True, kw_only=True)
class SolvedSettings:
    """Solved references (`impart.blending.solved`): kernel regression of the names on the reference images.

    Attributes:
        k: pairs that are named as an explanation.
        power: retrieval embeddings are whitened by this power of the background's second moments; 0 = not.
        beta: sharpness of the kernel exp(-beta (1 - cosine)).
        lam: lambda, the ridge of the kernel matrix.
        penalty: above 0, logistic regression takes the place of ridge regression, with this penalty; for closed sets.
        alpha: weight of the prediction, in logits of scale 100; 1 / alpha is the temperature of logistic regression.
        text_ridge: ridge of the dual texts; 0 = the pseudo-inverse, by which v' gives the logits of the classifier.
        debias: temperature at which the zero-shot classes are balanced over the references; 0 = not. For closed sets.
        floor, ramp: gate on the z-score of the nearest reference, as in `VanillaSettings`.
        low, high: gate on the largest prediction: closed up to `low`, open from `high` on; 0 = always open.
        target: v is turned towards the predicted name up to this cosine with its text; 0 = no bound.
    """

    k: int = 8
    power: float = 0.2
    beta: float = 2.0
    lam: float = 0.1
    penalty: float = 0.0
    alpha: float = 96.0
    text_ridge: float = 0.0
    debias: float = 0.0
    floor: float = 0.0
    ramp: float = 0.0
    low: float = 0.0
    high: float = 0.0
    target: float = 0.0

    def __post_init__(self) -> None:
        _check_finite(self, "solved")
        if self.k < 1:
            raise ConfigError(f"solved.k is {self.k}: at least one pair must be named")
        for name in ("beta", "lam", "alpha"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"solved.{name} is {getattr(self, name)}: it must be positive")
        for name in ("power", "penalty", "text_ridge", "debias", "floor", "ramp", "low", "high"):
            if getattr(self, name) < 0:
                raise ConfigError(f"solved.{name} is {getattr(self, name)}: it must be 0 or positive")
        if self.high and self.high <= self.low:
            raise ConfigError(f"solved.high is {self.high}: it must be above solved.low, which is {self.low}")
        if not 0 <= self.target < 1:
            raise ConfigError(f"solved.target is {self.target}: use 0 for no bound, or a cosine below 1")

    @property
    def off(self) -> bool:
        """Whether nothing is added: never, since alpha is positive."""
        return False


@dataclass(frozen=True, kw_only=True)
class RamSettings:
    """RAM, the trained retrieval-augmented module (`impart.blending.ram`).

    Attributes:
        form: `paper` (RA-CLIP: two branches of cross-attention); `vanilla`, whose initial output equals RA-CLIP
            Vanilla; or `solved`, the learned constants of weights solved on the set (mode `episodes`).
        layers: L, layers per branch.
        heads: attention heads; must divide the embedding width.
        k: neighbours per image.
        dropout: of the attention weights, in training.
        norm: add the output of a branch unchanged (`none`, RA-CLIP) or L2-normalised (`l2`, IMPART). Form `paper`.
        gate: multiply each branch by a learned factor that is initially zero, so that training starts at the base
            encoder. Form `paper`.
        w_img, w_txt, tau, floor, ramp: initial values of form `vanilla`, see `VanillaSettings`.
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
        if self.form not in ("paper", "vanilla", "solved"):
            raise ConfigError(f"ram.form is {self.form!r}: use paper, vanilla or solved")
        if self.norm not in ("none", "l2"):
            raise ConfigError(f"ram.norm is {self.norm!r}: use none or l2")
        if self.form != "paper" and (self.gate or self.norm != "none"):
            raise ConfigError('ram.gate and ram.norm belong to form "paper": remove them, or set ram.form = "paper"')
        for name in ("layers", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"ram.{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"ram.dropout is {self.dropout}: use a fraction from 0 to below 1")
        try:
            self.start  # noqa: B018 - checks the rest
        except ConfigError as error:
            raise ConfigError(str(error).replace("vanilla.", "ram.", 1)) from error

    @property
    def start(self) -> VanillaSettings:
        """Initial Vanilla settings of form `vanilla`."""
        return VanillaSettings(
            k=self.k, w_img=self.w_img, w_txt=self.w_txt, tau=self.tau, floor=self.floor, ramp=self.ramp
        )


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """Sampling and decoding of frames.

    Attributes:
        fps: frames sampled per second of presentation time (IMPART 3.3: 4).
        reuse_threshold: a frame whose mean absolute difference (0..255) to the last encoded frame is below this
            reuses that embedding; 0 = encode every sampled frame.
        fit: how a frame becomes the square input of an image tower. `squash` resizes the whole frame to a square;
            `crop` leaves the frame to the encoder, which mostly crops the centre: 56% of a 16:9 frame.
        stream: video stream to decode, from 1 in the file's order; 0 = the best one, as players choose it. Files with
            fewer streams are decoded at the best one.
        stall_s: a decoder without output for this long is stopped, and its file is reported.
        look_ahead: decoded frames kept in memory while the encoder is busy.
        threads: CPU threads of the decoder; 0 = half the cores (the others are for the encoder), and twice the cores
            for frames from 1280 x 720 on; at most 8.
        memory_gb: memory that one file may take in the decoder's process; a file that needs more is reported. 8K video
            of 10 bits takes up to 2. 0 = no limit. Linux alone enforces it.
    """

    fps: float = 4.0
    reuse_threshold: float = 2.0
    fit: Fit = "squash"
    stream: int = 0
    stall_s: float = 60.0
    look_ahead: int = 128
    threads: int = 0
    memory_gb: float = 4.0

    def __post_init__(self) -> None:
        _check_finite(self, "decode")
        if not 0 < self.fps <= 240:
            raise ConfigError(f"decode.fps is {self.fps}: frames per second must be above 0 and at most 240")
        if self.reuse_threshold < 0:
            raise ConfigError(f"decode.reuse_threshold is {self.reuse_threshold}: use 0 to encode every frame")
        if self.fit not in get_args(Fit):
            raise ConfigError(f"decode.fit is {self.fit!r}: use {' or '.join(get_args(Fit))}")
        if self.stream < 0:
            raise ConfigError(f"decode.stream is {self.stream}: streams count from 1; 0 takes the best one")
        if self.look_ahead < 1:
            raise ConfigError(f"decode.look_ahead is {self.look_ahead}: it must be at least 1 frame")
        if self.threads < 0:
            raise ConfigError(f"decode.threads is {self.threads}: use 0 for the default, or a number of threads")
        if self.memory_gb < 0:
            raise ConfigError(f"decode.memory_gb is {self.memory_gb}: use 0 for no limit, or a number of gigabytes")
        if self.stall_s <= 0:
            raise ConfigError(f"decode.stall_s is {self.stall_s}: use a positive number of seconds")


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Scenes and storage of a video index.

    Attributes:
        cut_threshold: cosine of retrieval embeddings below which the frames on two sides belong to two scenes. More is
            added for a step between frames that stands out (`impart.video.scenes.bounds.MARGINS`).
        precision: stored number type of vectors: `float16`, or `float32` at twice the size.
        compact_every: videos committed between two checks whether to compact the tables.
    """

    cut_threshold: float = 0.55
    precision: str = "float16"
    compact_every: int = 64

    def __post_init__(self) -> None:
        _check_finite(self, "index")
        if not -1 <= self.cut_threshold <= 1:
            raise ConfigError(f"index.cut_threshold is {self.cut_threshold}: it is a cosine, from -1 to 1")
        if self.compact_every < 1:
            raise ConfigError(f"index.compact_every is {self.compact_every}: it must be at least 1 video")
        if self.precision not in ("float16", "float32"):
            raise ConfigError(f"index.precision is {self.precision!r}: use float16 or float32")


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Defaults of a search.

    Attributes:
        top: number of hits.
        group: one hit per `video`, `moment`, `scene` or `frame`.
        by: rank a video by its best `moment`, by the `mean` of its frames (IMPART 3.3) or by its best `frame`.
        negative_weight: weight with which the mean of the negative terms is subtracted from the query (Rocchio's
            gamma).
        prompts: prompt ensemble of a text query (`impart.retrieval.prompts`); `["{}"]` = the text as typed.
        hub_correction: subtract the hubness from the scores of a text query (`impart.retrieval.hubness`).
    """

    top: int = 10
    group: Group = "video"
    by: By = "moment"
    negative_weight: float = 0.5
    prompts: tuple[str, ...] = ("{}.", "a photo of {}.", "a picture of {}.")
    hub_correction: bool = True

    def __post_init__(self) -> None:
        _check_finite(self, "search")
        if self.top < 1:
            raise ConfigError(f"search.top is {self.top}: it must be at least 1 hit")
        if self.group not in get_args(Group):
            raise ConfigError(f"search.group is {self.group!r}: use {_either(Group)}")
        if self.by not in get_args(By):
            raise ConfigError(f"search.by is {self.by!r}: use {_either(By)}")
        if not self.prompts or any(prompt.count("{}") != 1 for prompt in self.prompts):
            raise ConfigError(
                f"search.prompts are {list(self.prompts)}: use one or more, each with one {{}} for the text"
            )


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """Values that `impart refset sweep` varies.

    Attributes:
        sizes: of the reference set: `10%` of the pairs, or `300` pairs.
        ways: how the pairs are selected, see `impart.refset.subsets`.
        corrupt: fractions of the captions that are exchanged at random.
        k, w_img, w_txt, tau: as in `VanillaSettings`.
        seeds: number of random draws, from seed 0 on.
        grid: all combinations, instead of one value at a time.
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
    """Settings of a run. The settings of a blend (`VanillaSettings`) are stored with the reference set instead."""

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
            path: a TOML file with one table per concern, or None.
            start: replaces the defaults, such as the settings of an existing index.
            environ: None = the process environment.
            flags: `{"decode.fps": 2.0}`; values of None are ignored.

        Raises:
            ConfigError: the file cannot be read, or a name or value is wrong.
        """
        concerns: dict[str, Any] = {item.name: item.default_factory for item in dataclasses.fields(cls)}
        tables = read_toml(path, what="settings file") if path is not None else {}
        environ = os.environ if environ is None else environ
        flags = flags or {}
        where = f"settings file {path}"
        check_names(tables, concerns, where=where, kind="table")
        known = [f"{concern}.{item.name}" for concern, kind in concerns.items() for item in dataclasses.fields(kind)]
        _check_variables(environ, known)
        check_names(flags, known, where="the command line", retired=RETIRED)
        resolved: dict[str, Any] = {}
        for concern, kind in concerns.items():
            table = tables.get(concern, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{where}: {concern} is {table!r}: write a table [{concern}]")
            own = [name for name in known if name.startswith(f"{concern}.")]
            check_names((f"{concern}.{name}" for name in table), own, where=where, retired=RETIRED)
            values: dict[str, Any] = {}
            sources: dict[str, str] = {}
            for item in dataclasses.fields(kind):
                name = f"{concern}.{item.name}"
                given = {where: table.get(item.name), "the command line": flags.get(name)}
                if (text := environ.get(_variable(name))) is not None:
                    given = {where: given[where], f"environment variable {_variable(name)}": text} | given
                for source, value in given.items():  # the last one counts; each is checked
                    if value is not None:
                        values[item.name] = check_value(
                            type_hints(kind)[item.name],
                            value,
                            name=name,
                            where=source,
                            text=source.startswith("environment"),
                            example=item.default,
                        )
                        sources[name] = source
            try:
                resolved[concern] = dataclasses.replace(getattr(start or cls(), concern), **values)
            except ConfigError as error:
                origin = next((source for name, source in sources.items() if name in str(error)), where)
                raise ConfigError(f"{origin}: {error}") from error
        return cls(**resolved)

    def as_dict(self) -> dict[str, Any]:
        """Convert to nested dictionaries, as in manifests."""
        return dataclasses.asdict(self)


def _either(values: Any) -> str:
    """List the values of an option.

    >>> _either(Fit)
    'squash or crop'
    """
    *first, last = get_args(values)
    return f"{', '.join(first)} or {last}"


def _check_finite(settings: Any, concern: str) -> None:
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{concern}.{item.name} is {value}: it must be a finite number")


def _variable(name: str) -> str:
    """Environment variable of a setting.

    >>> _variable("decode.fps")
    'IMPART_DECODE_FPS'
    """
    return f"IMPART_{name.upper().replace('.', '_')}"


def _check_variables(environ: Mapping[str, str], known: list[str]) -> None:
    """Refuse environment variables that would be ignored.

    Raises:
        ConfigError: a variable is misspelt or retired.
    """
    for old, new in RETIRED.items():
        if _variable(old) in environ:
            raise ConfigError(f"environment variable {_variable(old)} is now {_variable(new)}: rename it")
    valid = [*VARIABLES, *map(_variable, known)]
    for name in environ:
        if name.startswith("IMPART_") and name not in valid:
            raise ConfigError(
                f"environment variable {name} is unknown{closest(name, valid)}: rename it, or unset it. Settings are "
                f"IMPART_<TABLE>_<NAME>, such as {_variable('decode.fps')}"
            )
