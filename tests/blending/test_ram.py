"""RAM against naive loops, Vanilla at step 0, masks, gradients."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from impart.blending.vanilla import Vanilla
from impart.config import RamSettings
from impart.encoders.base import l2_normalise
from impart.errors import ConfigError

torch = pytest.importorskip("torch")

from impart.blending.ram import Branch, PaperRam, Retrieved, build_ram  # noqa: E402

B, K, D, R = 7, 5, 16, 8
STARTS = [
    {},
    {"tau": 0.0, "floor": 0.0, "ramp": 0.0, "w_txt": 0.05},
    {"floor": 1.5, "ramp": 0.0},
    {"floor": 1.5, "ramp": 1.0},
    {"floor": 99.0},
]
PAPER = [
    {},
    {"layers": 2},
    {"norm": "l2"},
    {"gate": True},
    {"layers": 2, "norm": "l2", "gate": True},
]


def retrieved(batch: int = B, k: int = K, *, seed: int = 0, hidden: tuple[int, ...] = ()) -> Retrieved:
    """Random neighbours; image 0 has two fewer, `hidden` images have none."""
    rng = np.random.default_rng(seed)

    def units(*shape: int) -> np.ndarray:
        return l2_normalise(rng.standard_normal(shape).astype(np.float32))

    q = units(batch, R)
    r_ret = l2_normalise(units(batch, k, R) + 1.5 * q[:, None])
    sims = np.einsum("br,bkr->bk", q, r_ret)
    order = np.argsort(-sims, axis=1)
    sims, r_ret = np.take_along_axis(sims, order, 1), np.take_along_axis(r_ret, order[..., None], 1)
    mask = np.ones((batch, k), bool)
    mask[0, -2:] = False
    mask[list(hidden)] = False
    sims[~mask] = -1
    made = {
        "v": units(batch, D),
        "q": q,
        "r_img": units(batch, k, D),
        "r_txt": units(batch, k, D),
        "r_ret": r_ret,
        "sims": sims,
        "z_scores": (3 * sims).astype(np.float32),
        "mask": mask,
    }
    return Retrieved(**{name: torch.as_tensor(value) for name, value in made.items()})


def settings(**values: object) -> RamSettings:
    return RamSettings(**{"heads": 4, "k": K, **values})  # type: ignore[arg-type]


def naive_attention(layer: torch.nn.Module, query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One image, one head, one neighbour at a time; (D,) from (D,), (K, D), (K, D)."""

    def project(linear: torch.nn.Linear, rows: np.ndarray) -> np.ndarray:
        return rows @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()

    q, k, v = project(layer.query, query), project(layer.key, keys), project(layer.value, values)
    width = D // layer.heads
    mixed = np.zeros(D)
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        raw = [math.exp(q[part] @ k[i, part] / math.sqrt(width)) for i in range(len(keys))]
        for i, share in enumerate(raw):
            mixed[part] += share / sum(raw) * v[i, part]
    return project(layer.out, mixed)


@pytest.mark.parametrize("values", PAPER)
def test_the_papers_form_equals_a_naive_loop(values: dict[str, object]) -> None:
    torch.manual_seed(0)
    ram, found = build_ram(settings(**values), dim=D, retrieval_dim=R), retrieved()
    assert isinstance(ram, PaperRam)
    for parameter in ram.parameters():  # biases and gates too
        torch.nn.init.normal_(parameter, std=0.4)
    want = []
    for b in range(B):
        rows = found.mask[b].numpy()
        img, txt = (r[b].double().numpy()[rows] for r in (found.r_img, found.r_txt))
        total = np.zeros(D)
        for number, (branch, keys, out) in enumerate(((ram.text, img, txt), (ram.image, txt, img))):
            h = v = found.v[b].double().numpy()
            for layer in branch.layers:
                h = h + naive_attention(layer, h, keys, out)
            added = h - v
            if ram.settings.norm == "l2":
                added = added / np.linalg.norm(added)
            total += added * (float(ram.gates[number].detach()) if ram.gates is not None else 1.0)
        want.append(total)
    np.testing.assert_allclose(ram(found).added.detach().numpy(), np.stack(want), atol=1e-5)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("start", STARTS)
def test_form_vanilla_starts_exactly_at_vanilla(start: dict[str, float], layers: int) -> None:
    chosen, found = settings(form="vanilla", layers=layers, **start), retrieved(40, seed=3)
    out = build_ram(chosen, dim=D, retrieval_dim=R).eval()(found)
    sims, z_scores = found.sims.numpy(), np.where(found.mask, found.z_scores, -3.0).astype(np.float32)
    img, txt = Vanilla(chosen.start).coefficients(sims, z_scores)
    np.testing.assert_allclose(out.img_weights.detach(), img, atol=1e-6)
    np.testing.assert_allclose(out.txt_weights.detach(), txt, atol=1e-6)
    want = np.einsum("bk,bkd->bd", img, found.r_img) + np.einsum("bk,bkd->bd", txt, found.r_txt)
    np.testing.assert_allclose(out.added.detach(), want, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("form", ["paper", "vanilla"])
@pytest.mark.parametrize("train", [True, False])
def test_an_image_without_neighbours_is_unchanged(form: str, layers: int, train: bool) -> None:
    torch.manual_seed(0)
    ram = build_ram(settings(form=form, layers=layers, dropout=0.1), dim=D, retrieval_dim=R).train(train)
    for parameter in ram.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    found = retrieved(hidden=(2, 5))
    out = ram(found)
    assert torch.isfinite(out.added).all()
    for part in (out.added, out.img_weights, out.txt_weights):
        assert not part[[2, 5]].any()
        assert part[[1, 3]].any()
    out.added.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in ram.parameters() if p.grad is not None)
    none_found = retrieved(hidden=tuple(range(B)))
    assert not ram(none_found).added.any()


@pytest.mark.parametrize("form", ["paper", "vanilla"])
def test_masked_neighbours_do_not_change_the_output(form: str) -> None:
    torch.manual_seed(0)
    ram = build_ram(settings(form=form, layers=2, floor=0.5), dim=D, retrieval_dim=R).eval()
    for parameter in ram.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    found, hidden = retrieved(), slice(0, K - 2)
    changed = {name: getattr(found, name).clone() for name in ("r_img", "r_txt", "r_ret", "sims", "z_scores")}
    for tensor in changed.values():
        tensor[0, K - 2 :] = 9.0
    got, want = ram(dataclasses.replace(found, **changed)), ram(found)
    torch.testing.assert_close(got.added, want.added, atol=1e-5, rtol=1e-5)
    fields = {f.name: getattr(found, f.name)[:1] for f in dataclasses.fields(found)}
    fields = {name: value[:, hidden] if name not in ("v", "q") else value for name, value in fields.items()}
    torch.testing.assert_close(ram(Retrieved(**fields)).added, want.added[:1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("values", [*PAPER, {"form": "vanilla", "floor": 0.0}, {"form": "vanilla", "floor": 2.0}])
def test_every_parameter_learns(values: dict[str, object]) -> None:
    """A few steps change every parameter, and the loss falls."""
    torch.manual_seed(0)
    ram, found = build_ram(settings(**values), dim=D, retrieval_dim=R), retrieved(64, seed=1)
    before = {name: parameter.detach().clone() for name, parameter in ram.named_parameters()}
    target = torch.nn.functional.normalize(found.r_txt[:, 0] + found.v, dim=-1)
    optimiser, losses = torch.optim.Adam(ram.parameters(), lr=0.01), []
    for _ in range(12):
        loss = -((torch.nn.functional.normalize(found.v + ram(found).added, dim=-1) * target).sum(dim=1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.02
    # A constant added to all scores of a softmax changes nothing, so biases of keys and preferences get no gradient.
    idle = ("key.bias", "preference.2.bias")
    stuck = [n for n, p in ram.named_parameters() if torch.equal(p, before[n]) and not n.endswith(idle)]
    assert not stuck


def test_the_gate_starts_at_the_plain_encoder() -> None:
    out = build_ram(settings(gate=True), dim=D, retrieval_dim=R)(retrieved())
    assert not out.added.any()
    assert not out.img_weights.any()


def test_weights_sum_to_the_length_of_what_a_branch_adds() -> None:
    ram, found = build_ram(settings(norm="l2"), dim=D, retrieval_dim=R), retrieved()
    np.testing.assert_allclose(ram(found).txt_weights.sum(dim=1).detach(), 1, atol=1e-5)


def test_branches_run_in_bfloat16() -> None:
    ram, found = build_ram(settings(form="vanilla", floor=0.5), dim=D, retrieval_dim=R), retrieved(hidden=(3,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = ram(found).added
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got.float(), ram(found).added, atol=0.03, rtol=0.03)


def test_settings_that_cannot_work_are_refused() -> None:
    for bad in ({"form": "x"}, {"norm": "x"}, {"layers": 0}, {"heads": 0}, {"dropout": 1.0}, {"k": 0}, {"tau": -1.0}):
        with pytest.raises(ConfigError, match=f"ram.{next(iter(bad))}"):
            RamSettings(**bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match='form "paper"'):
        RamSettings(form="vanilla", gate=True)
    with pytest.raises(ConfigError, match="does not divide the embedding width 16"):
        build_ram(RamSettings(heads=5), dim=16, retrieval_dim=8)


def test_a_silent_branch_adds_nothing() -> None:
    found = retrieved()
    added, _ = Branch(D, layers=2, heads=2, dropout=0.0, silent=True)(found.v, found.r_img, found.r_txt, found.mask)
    assert not added.any()
