"""RAM, the retrieval-augmented module: cross-attention from an image to its neighbours (RA-CLIP, section 3.2).

    v' = normalise(v + text_branch + image_branch)
    text branch:  Q = v, K = r_img, V = r_txt
    image branch: Q = v, K = r_txt, V = r_img

Form `paper` computes these formulas. A branch of L layers refines its query: h_0 = v,
h_l = h_{l-1} + attention_l(h_{l-1}). It adds h_L - v; with one layer this is the paper's formula. With `norm = "l2"`
the output of a branch has unit length (IMPART 4.1). With `gate` it is multiplied by a learned number that starts at 0.

Form `vanilla` starts exactly at RA-CLIP Vanilla (`impart.blending.vanilla`): shares are softmax(similarity / tau),
values are the embeddings themselves, weights and gate are those of Vanilla. It learns corrections that start at zero.
They change the shares (by the retrieval embeddings, and by agreements of image, neighbours and their texts) and the
values. A learned trust, from 0 to 2, scales what is added. Agreements are cosines, so they are comparable between
reference sets.

Letters: B images, K neighbours, D embedding width, R retrieval width, H heads. Inputs and outputs are tensors.
`export_ram` writes a trained module as ONNX, for indexing and searching (`impart.blending.ram_onnx`); `ModuleRam` is a
blender that runs the torch module itself.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.blending.ram_export import export_graph
from impart.blending.ram_onnx import RamBlender
from impart.config import RamSettings
from impart.encoders.base import Encoder, Float32
from impart.errors import ConfigError, EncoderError
from impart.files import new_sha256

__all__ = [
    "ModuleRam",
    "Ram",
    "RamOutput",
    "Retrieved",
    "build_ram",
    "export_graph",
    "export_ram",
    "read_weights",
    "write_weights",
]

_FAR = -1e4  # a score whose softmax share is 0; finite in float16
_RANK = 16  # width of a head's learned correction of the similarity
_HIDDEN = 32
_AGREEMENTS = 6
_Z_SCORES = 0.1  # scales z-scores, some 0..20 standard deviations, to the size of cosines
_OLD_KEYS = {"z_scale": "standing_scale"}  # weights whose key on disk differs: version 0.1.0 wrote it


@dataclass(frozen=True)
class Retrieved:
    """A batch of images with their neighbours.

    Attributes:
        v: (B, D) unit image embeddings.
        q: (B, R) unit retrieval embeddings.
        r_img: (B, K, D) image embeddings of the neighbours, like r_txt (B, K, D) and r_ret (B, K, R); any finite
            numbers where there is no neighbour.
        sims: (B, K) cosines of q with r_ret, best first.
        z_scores: (B, K) z-scores of these cosines (`impart.retrieval.znorm`).
        mask: (B, K) bool, True = a real neighbour.
    """

    v: Tensor
    q: Tensor
    r_img: Tensor
    r_txt: Tensor
    r_ret: Tensor
    sims: Tensor
    z_scores: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        batch, k = self.mask.shape
        dim, width = self.v.shape[-1], self.q.shape[-1]
        assert self.v.shape == (batch, dim), self.v.shape
        assert self.r_img.shape == self.r_txt.shape == (batch, k, dim), (self.r_img.shape, self.r_txt.shape)
        assert self.q.shape == (batch, width), self.q.shape
        assert self.r_ret.shape == (batch, k, width), self.r_ret.shape
        assert self.sims.shape == self.z_scores.shape == (batch, k), (self.sims.shape, self.z_scores.shape)


@dataclass(frozen=True)
class RamOutput:
    """Output of a RAM for a batch: v' = normalise(v + added).

    Attributes:
        added: (B, D); zero where an image has no neighbour.
        img_weights: (B, K) weight of each neighbour's image embedding: shares that sum to the length (for form
            `vanilla`, the weight) of what its branch adds. They serve as an explanation and are not used to compute.
        txt_weights: (B, K) the same for the text embeddings.
    """

    added: Tensor
    img_weights: Tensor
    txt_weights: Tensor


class Ram(nn.Module):
    """Base class of all forms: `forward(Retrieved) -> RamOutput`."""

    settings: RamSettings

    def forward(self, found: Retrieved) -> RamOutput:
        raise NotImplementedError

    def export(self, path: Path, *, dim: int, retrieval_dim: int) -> None:
        """Write the graph of the checkpoint (see `export_ram`)."""
        export_ram(self, path, dim=dim, retrieval_dim=retrieval_dim)


def build_ram(settings: RamSettings, *, dim: int, retrieval_dim: int) -> Ram:
    """Build the module for an encoder of widths D and R.

    Raises:
        ConfigError: the heads do not divide D, or only mode `episodes` has the form.
    """
    if settings.form == "solved":
        raise ConfigError('ram.form "solved" learns in mode episodes alone: impart train ram_episodes_solved')
    if dim % settings.heads:
        raise ConfigError(f"ram.heads is {settings.heads}, which does not divide the embedding width {dim}")
    if settings.form == "vanilla":
        return VanillaRam(settings, dim=dim, retrieval_dim=retrieval_dim)
    return PaperRam(settings, dim=dim)


def export_ram(ram: Ram, path: Path, *, dim: int, retrieval_dim: int) -> None:
    """Write a module as ONNX: inputs are the fields of `Retrieved` that it reads, outputs those of `RamOutput`.

    B and K are dynamic. The export is run on random inputs, and its outputs are compared with those of the module.

    Raises:
        EncoderError: torch cannot export it, or the outputs differ.
        MissingExtraError: the exporter's packages are not installed.
    """
    batch, k = torch.export.Dim("batch"), torch.export.Dim("k")
    rows, grid = {0: batch}, {0: batch, 1: k}
    export_graph(
        _Flat(copy.deepcopy(ram).cpu().float().eval()),
        path,
        _sample(3, 2 + ram.settings.k, dim, retrieval_dim),
        outputs=[item.name for item in dataclasses.fields(RamOutput)],
        check=_sample(5, ram.settings.k, dim, retrieval_dim),
        shapes=((rows, rows, *(grid for _ in range(6))),),  # of `*tensors`
    )


def write_weights(ram: Ram, path: Path) -> None:
    """Write the weights of a module as safetensors, so that training can continue from them."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in ram.state_dict().items()}, str(path))


def read_weights(ram: Ram, path: Path) -> None:
    """Load weights that `write_weights` wrote into a module of the same settings.

    Raises:
        EncoderError: the file cannot be read, or has the weights of other settings.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        ram.load_state_dict(load_file(str(path)))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise EncoderError(f"{path} does not have the weights of a RAM with {ram.settings}: {error}") from error


def _sample(batch: int, k: int, dim: int, retrieval_dim: int) -> dict[str, Tensor]:
    """Draw random unit vectors in the layout of `Retrieved`."""
    draw = torch.Generator().manual_seed(0)

    def units(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, generator=draw), dim=-1)

    q, r_ret = units(batch, retrieval_dim), units(batch, k, retrieval_dim)
    sims = torch.einsum("br,bkr->bk", q, r_ret)
    tensors = (units(batch, dim), q, units(batch, k, dim), units(batch, k, dim), r_ret, sims, 9 * sims, sims > -0.5)
    return dict(zip((item.name for item in dataclasses.fields(Retrieved)), tensors, strict=True))


class _Flat(nn.Module):
    """RAM with plain tensors as inputs and outputs, for the exporter."""

    def __init__(self, ram: Ram):
        super().__init__()
        self.ram = ram

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = self.ram(Retrieved(*tensors))
        return out.added, out.img_weights, out.txt_weights


class CrossAttention(nn.Module):
    """Multi-head attention from one query per image to its K neighbours; a mask may hide all of them.

    Args:
        dim: D.
        heads: H, which divides D.
        dropout: of the shares.
        silent: start with an output of zero.
    """

    def __init__(self, dim: int, *, heads: int, dropout: float, silent: bool = False):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.dropout = nn.Dropout(dropout)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        if silent:
            nn.init.zeros_(self.out.weight)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from query (B, D) to keys and values (B, K, D), with mask (B, K).

        Returns:
            Output (B, D), and shares (B, K) as the mean over heads.
        """
        q = self.query(query).unflatten(-1, (self.heads, -1))  # (B, H, D/H)
        k = self.key(keys).unflatten(-1, (self.heads, -1))  # (B, K, H, D/H)
        v = self.value(values).unflatten(-1, (self.heads, -1))
        scores = torch.einsum("bhd,bkhd->bhk", q, k) / math.sqrt(q.shape[-1])
        shares = masked_softmax(scores, mask[:, None])  # (B, H, K)
        mixed = torch.einsum("bhk,bkhd->bhd", self.dropout(shares), v).flatten(1)  # (B, D)
        # Mask the output too: its bias would otherwise be added when every neighbour is masked.
        return self.out(mixed) * mask.any(dim=1, keepdim=True), shares.mean(dim=1)


class Branch(nn.Module):
    """L layers of cross-attention with a residual query; the output is what they add to v (B, D), and shares (B, K)."""

    def __init__(self, dim: int, *, layers: int, heads: int, dropout: float, silent: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(
            CrossAttention(dim, heads=heads, dropout=dropout, silent=silent) for _ in range(layers)
        )

    def forward(self, v: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        added, total = torch.zeros_like(v), torch.zeros_like(mask, dtype=v.dtype)
        for layer in self.layers:
            out, shares = layer(v + added, keys, values, mask)
            added, total = added + out, total + shares
        return added, total / len(self.layers)


class PaperRam(Ram):
    """Module of RA-CLIP, with the normalisation of IMPART and a gate as options."""

    def __init__(self, settings: RamSettings, *, dim: int):
        super().__init__()
        self.settings = settings
        shape = {"layers": settings.layers, "heads": settings.heads, "dropout": settings.dropout}
        self.text = Branch(dim, **shape)  # type: ignore[arg-type]
        self.image = Branch(dim, **shape)  # type: ignore[arg-type]
        self.gates = nn.Parameter(torch.zeros(2)) if settings.gate else None

    def forward(self, found: Retrieved) -> RamOutput:
        text, txt_shares = self.text(found.v, found.r_img, found.r_txt, found.mask)
        image, img_shares = self.image(found.v, found.r_txt, found.r_img, found.mask)
        if self.settings.norm == "l2":
            text, image = F.normalize(text, dim=-1), F.normalize(image, dim=-1)
        if self.gates is not None:
            text, image = self.gates[0] * text, self.gates[1] * image
        return RamOutput(
            text + image,
            img_weights=img_shares * image.norm(dim=-1, keepdim=True).detach(),
            txt_weights=txt_shares * text.norm(dim=-1, keepdim=True).detach(),
        )


class VanillaRam(Ram):
    """Module that equals Vanilla at step 0 and learns corrections of shares, values and trust."""

    def __init__(self, settings: RamSettings, *, dim: int, retrieval_dim: int):
        super().__init__()
        self.settings = settings
        heads, start = settings.heads, settings.start
        self.heads = heads
        self.sharpness = 1 / start.tau if start.tau > 0 else 0.0
        self.log_sharpness = nn.Parameter(torch.zeros(2, heads))  # of both branches: 0 = image, 1 = text
        self.z_scale = nn.Parameter(torch.zeros(2, heads))
        self.weights = nn.Parameter(torch.tensor([start.w_img, start.w_txt]))
        self.floor = nn.Parameter(torch.tensor(float(start.floor))) if start.floor > 0 else None
        self.log_ramp = nn.Parameter(torch.tensor(math.log(start.ramp))) if start.floor > 0 and start.ramp > 0 else None
        self.query = nn.Linear(retrieval_dim, 2 * heads * _RANK, bias=False)
        self.key = _silent(nn.Linear(retrieval_dim, 2 * heads * _RANK, bias=False))
        self.preference = _scorer(_AGREEMENTS, 2 * heads)
        self.trust = _scorer(_AGREEMENTS + 3, 2)
        self.values = nn.ModuleList(_silent(nn.Linear(dim, dim, bias=False)) for _ in range(2))
        self.outs = nn.ModuleList(_silent(nn.Linear(dim, dim, bias=False)) for _ in range(2))
        self.dropout = nn.Dropout(settings.dropout)
        shape = {"layers": settings.layers - 1, "heads": heads, "dropout": settings.dropout, "silent": True}
        deeper = settings.layers > 1
        self.text = Branch(dim, **shape) if deeper else None  # type: ignore[arg-type]
        self.image = Branch(dim, **shape) if deeper else None  # type: ignore[arg-type]
        self.register_state_dict_post_hook(_write_old_keys)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_read_old_keys)  # type: ignore[no-untyped-call]

    def forward(self, found: Retrieved) -> RamOutput:
        z_scores = found.z_scores.masked_fill(~found.mask, _FAR)
        kept = found.mask if self.floor is None else found.mask & (z_scores >= self.floor)  # (B, K)
        agreements = _agreements(found, kept)  # (B, K, 6)
        shares = masked_softmax(self._scores(found, agreements), kept[:, None, None])  # (B, 2, H, K)
        amount = self._gate(z_scores) * self.weights * self._trust(found, shares, z_scores, agreements)  # (B, 2)
        added, weights = torch.zeros_like(found.v), []
        for i, values in enumerate((found.r_img, found.r_txt)):
            split = (values + self.values[i](values)).unflatten(-1, (self.heads, -1))  # (B, K, H, D/H)
            mixed = torch.einsum("bhk,bkhd->bhd", self.dropout(shares[:, i]), split).flatten(1)  # (B, D)
            added = added + amount[:, i, None] * (mixed + self.outs[i](mixed))
            weights.append(amount[:, i, None] * shares[:, i].mean(dim=1))
        if self.text is not None and self.image is not None:
            h = F.normalize(found.v + added, dim=-1)
            text, _ = self.text(h, found.r_img, found.r_txt, kept)
            image, _ = self.image(h, found.r_txt, found.r_img, kept)
            added = added + self._gate(z_scores) * (text + image)
        return RamOutput(added, img_weights=weights[0], txt_weights=weights[1])

    def _scores(self, found: Retrieved, agreements: Tensor) -> Tensor:
        """Compute the scores (B, 2, H, K) before the softmax: scaled similarity, z-score and learned preferences."""
        sharpness = self.sharpness * self.log_sharpness.exp()
        q = self.query(found.q).unflatten(-1, (2, self.heads, _RANK))  # (B, 2, H, rank)
        k = self.key(found.r_ret).unflatten(-1, (2, self.heads, _RANK))  # (B, K, 2, H, rank)
        scores = torch.einsum("bnhr,bknhr->bnhk", q, k)
        scores = scores + self.preference(agreements).unflatten(-1, (2, self.heads)).permute(0, 2, 3, 1)
        scores = scores + sharpness[None, :, :, None] * found.sims[:, None, None]
        total: Tensor = scores + self.z_scale[None, :, :, None] * found.z_scores[:, None, None]
        return total

    def _gate(self, z_scores: Tensor) -> Tensor:
        """Compute the gate (B, 1) of Vanilla: 0 below the floor, rising to 1 at floor + ramp."""
        best = z_scores.amax(dim=1, keepdim=True)
        if self.floor is None:
            return (best > _FAR).to(z_scores.dtype)
        if self.log_ramp is None:
            return (best >= self.floor).to(z_scores.dtype)
        rising: Tensor = ((best - self.floor) / self.log_ramp.exp()).clamp(0, 1)
        return rising

    def _trust(self, found: Retrieved, shares: Tensor, z_scores: Tensor, agreements: Tensor) -> Tensor:
        """Compute the trust (B, 2), from 0 to 2, by nearness and agreement of the neighbours; 1 at the start."""
        mean = shares.mean(dim=(1, 2))  # (B, K)
        pooled = torch.einsum("bk,bkf->bf", mean, agreements)
        best = found.sims.masked_fill(~found.mask, 0).amax(dim=1)
        nearest = _Z_SCORES * z_scores.amax(dim=1).clamp(min=0)
        alone = mean.square().sum(dim=1)  # 1 = one neighbour has the whole share
        return 2 * torch.sigmoid(self.trust(torch.cat([pooled, torch.stack([best, nearest, alone], dim=1)], dim=1)))


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Compute a softmax over the last dimension where `mask` is True, 0 elsewhere; all 0 where no entry is True.

    >>> masked_softmax(torch.zeros(2, 2), torch.tensor([[True, False], [False, False]])).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    shares: Tensor = torch.softmax(scores.masked_fill(~mask, _FAR), dim=-1) * mask
    return shares


def _agreements(found: Retrieved, kept: Tensor) -> Tensor:
    """Compute agreements (B, K, 6): similarity, z-score; for images and texts, products with v and with their mean."""
    count = kept.sum(dim=1).clamp(min=1)[:, None]  # (B, 1)
    columns = [found.sims, _Z_SCORES * found.z_scores]
    for values in (found.r_img, found.r_txt):
        columns.append(torch.einsum("bd,bkd->bk", found.v, values))
        mean = (values * kept[..., None]).sum(dim=1) / count  # (B, D)
        columns.append(torch.einsum("bd,bkd->bk", mean, values))
    return torch.stack(columns, dim=-1) * found.mask[..., None]


def _write_old_keys(_module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Rename weights to their keys on disk, in checkpoints of a RAM and of training runs."""
    for name, key in _OLD_KEYS.items():
        state[prefix + key] = state.pop(prefix + name)


def _read_old_keys(_module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename weights from their keys on disk."""
    for name, key in _OLD_KEYS.items():
        if prefix + key in state:
            state[prefix + name] = state.pop(prefix + key)


def _scorer(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, _HIDDEN), nn.GELU(), _silent(nn.Linear(_HIDDEN, outputs)))


def _silent(layer: nn.Linear) -> nn.Linear:
    """Initialise a layer with an output of zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ModuleRam(RamBlender):
    """Blender that runs the torch module itself, without an export.

        encoder = AugmentedEncoder(base, references, ModuleRam(ram, base))

    It runs in evaluation mode and without gradients, on its own device, with the current weights. For indexing and
    serving, write the module with `impart.blending.ram_checkpoint.write_checkpoint`.

    Args:
        ram: the module.
        base: the encoder that it is trained with.
    """

    def __init__(self, ram: Ram, base: Encoder) -> None:
        super().__init__(ram.settings, encoder_id=base.traits.id, encoder_fingerprint=base.fingerprint)
        self.ram = ram

    def __repr__(self) -> str:
        return f"ModuleRam({self.settings})"

    @property
    def place(self) -> str:
        return "in memory"

    @property
    def digest(self) -> str:
        """Digest over the current weights and the settings."""
        digest = new_sha256(json.dumps(dataclasses.asdict(self.settings), sort_keys=True))
        for name, tensor in self.ram.state_dict().items():
            plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # NumPy has no bfloat16
            digest.update(name.encode() + plain.numpy().tobytes())
        return digest.hexdigest()

    def run(self, feeds: dict[str, npt.NDArray[Any]]) -> tuple[Float32, Float32, Float32]:
        device = next((parameter.device for parameter in self.ram.parameters()), torch.device("cpu"))
        found = Retrieved(**{name: torch.tensor(array, device=device) for name, array in feeds.items()})
        learning = self.ram.training
        self.ram.eval()
        try:
            with torch.no_grad():
                output = self.ram(found)
        finally:
            self.ram.train(learning)
        added, img, txt = (
            part.float().cpu().numpy() for part in (output.added, output.img_weights, output.txt_weights)
        )
        return added, img, txt
