"""Measure a model of `benchmarks/ra_clip_scratch.py` on the test arrays; nothing is decoded or retrieved twice.

Zero-shot with one prompt and with the ensemble, linear probe, classification of boxes, text to image, text to video.
Right and wrong are kept per item, so that two models are compared on the same items.

Letters: n rows, m items, C classes, T texts, K neighbours, D embedding width.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from impart.evaluate.class_prompts import templates_of
from impart.metrics.ranking import ranks_of
from impart.train.prepare.retrieved import ZNormTensors
from impart.train.pretrain.model import Bank, Lookup, PretrainModel
from ra_clip import CLASS_SETS
from ra_clip_scratch_pack import MEANS
from ra_clip_scratch_tests import PROBES, TestSet

__all__ = ["Measured", "Right", "bank_of", "rows_of_bank"]

Right = npt.NDArray[np.bool_]
Inputs = Callable[[TestSet], Tensor]
_AT_ONCE = 256
_RANKS = (1, 5, 10)
_PROBE_C = 1.0


def rows_of_bank(bank: Bank, rows: npt.NDArray[np.int64]) -> Bank:
    """Return the bank with some of its references; the statistics of the background stay."""
    count, chosen = len(bank.retrieval), torch.as_tensor(rows)
    values = {field.name: getattr(bank, field.name) for field in dataclasses.fields(bank)}
    part: dict[str, Any] = {
        name: value[chosen] for name, value in values.items() if isinstance(value, Tensor) and len(value) == count
    }
    return dataclasses.replace(bank, **part)


def bank_of(image: Tensor, text: Tensor, retrieval: Tensor, **more: Any) -> Bank:
    """Make a bank of references from outside the training data: (N, D), (N, D), (N, R)."""
    groups = torch.full((len(image),), -3, dtype=torch.int64)
    return Bank(image.half(), text.half(), retrieval.half(), groups, ZNormTensors.of(retrieval), **more)


class Measured:
    """Base embeddings of all tests by one trained model, and figures with any references.

    Args:
        model: trained; its bank is replaced by that of each measurement.
        tests: by name.
        inputs: makes the image tower's input from a test.
        retriever: whose retrieval embeddings find neighbours; empty = the image tower.
        bf16: precision of the image tower, as in training.
    """

    def __init__(
        self, model: PretrainModel, tests: Mapping[str, TestSet], *, inputs: Inputs, retriever: str, bf16: bool
    ):
        self._bf16 = bf16
        self.model, self.tests, self.retriever, self._inputs = model.eval(), tests, retriever, inputs
        self._near_duplicate = model.near_duplicate
        self._v: dict[str, Tensor] = {}
        self._heads: dict[tuple[str, str], Tensor] = {}
        self._texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def v(self, name: str) -> Tensor:
        """Return base embeddings (n, D)."""
        if name not in self._v:
            parts = torch.split(self._inputs(self.tests[name]), _AT_ONCE)
            with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
                self._v[name] = torch.cat([self.model.image(part) for part in parts]).float()
        return self._v[name]

    def q(self, name: str) -> Tensor:
        """Return retrieval embeddings (n, R)."""
        return self.tests[name].retrieval[self.retriever].float() if self.retriever else self.v(name)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts: (T, D)."""
        towers = self.model.towers
        parts = [list(texts[first : first + _AT_ONCE]) for first in range(0, len(texts), _AT_ONCE)]
        return torch.cat([self.model.text(towers.tokens(part)) for part in parts]).float()

    def head(self, name: str, prompts: str) -> Tensor:
        """Return the class embeddings (C, D) of a test by `single` prompt or `ensemble`."""
        if (name, prompts) not in self._heads:
            classes, templates = self.tests[name].classes, templates_of(prompts)
            made = self.texts([template.format(word) for word in classes for template in templates])
            made = made.reshape(len(classes), len(templates), -1)  # (C * P, D) to (C, P, D)
            self._heads[name, prompts] = F.normalize(made.mean(1), dim=-1)
        return self._heads[name, prompts]

    @torch.no_grad()
    def augmented(self, name: str, bank: Bank | None, *, k: int = 8, shuffle: bool = False) -> Tensor:
        """Compute v' (n, D) with some references, or return v without; `shuffle` retrieves random ones."""
        v, model = self.v(name), self.model
        if bank is None:
            return v
        q, own = self.q(name), torch.full((len(v),), -2)
        model.bank, model.near_duplicate = bank, 2.0  # copies of test images are removed from the bank instead
        draw = torch.Generator().manual_seed(0)
        rows = []
        for first in range(0, len(v), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            ids = (F.normalize(q[part], dim=-1) @ bank.retrieval.float().T).topk(min(k, len(bank.retrieval)), 1).indices
            if shuffle:
                ids = torch.randint(len(bank.retrieval), ids.shape, generator=draw)
            rows.append(model.augment(v[part], Lookup(q[part], ids, own[part])))
        model.near_duplicate = self._near_duplicate
        return torch.cat(rows)

    def zeroshot(
        self, bank: Bank | None, *, prompts: str = "single", k: int = 8, shuffle: bool = False
    ) -> tuple[dict[str, float], dict[str, Right]]:
        """Classify the four sets: top-1 in percent by set and their mean, and right or wrong per image."""
        right = {
            name: self._right(name, self.augmented(name, bank, k=k, shuffle=shuffle), prompts) for name in CLASS_SETS
        }
        figures = {name: 100 * float(values.mean()) for name, values in right.items()}
        return figures | {"zeroshot": float(np.mean(list(figures.values())))}, right

    def _right(self, name: str, rows: Tensor, prompts: str) -> Right:
        test = self.tests[name]
        means = pooled(rows, test)
        found: Right = ((means @ self.head(name, prompts).T).argmax(1) == test.labels).numpy()
        return found

    def everything(
        self, bank: Bank | None, *, k: int = 8, shuffle: bool = False, probes: bool = True
    ) -> tuple[dict[str, float], dict[str, Right]]:
        """Measure all tests: figures in percent and right or wrong per item, by name.

        `NAME` is zero-shot with one prompt, `NAME@7` with the ensemble, `NAME/probe` the linear probe.
        """
        figures: dict[str, float] = {}
        right: dict[str, Right] = {}
        chosen = [name for name in self.tests if probes or not name.endswith("/train")]
        rows = {name: self.augmented(name, bank, k=k, shuffle=shuffle) for name in chosen}
        for suffix, prompts in (("", "single"), ("@7", "ensemble")):
            for name in CLASS_SETS:
                right[name + suffix] = self._right(name, rows[name], prompts)
        if "coco" in rows:
            right["coco"] = self._right("coco", rows["coco"], "ensemble")
        for name in ("flickr8k", "panda"):
            if name in rows:
                ranks = self._ranks(name, rows[name])
                right |= {f"{name}_r{at}": ranks < at for at in _RANKS}
        for name in PROBES:
            if f"{name}/train" in rows:
                right[f"{name}/probe"] = probe(
                    rows[f"{name}/train"], self.tests[f"{name}/train"].labels, rows[name], self.tests[name].labels
                )
        figures |= {name: 100 * float(values.mean()) for name, values in right.items()}
        for mean, names in MEANS.items():
            if all(name in figures for name in names):
                figures[mean] = float(np.mean([figures[name] for name in names]))
        return figures, right

    def recalls(
        self, name: str, bank: Bank | None, *, k: int = 8, shuffle: bool = False
    ) -> tuple[dict[str, float], dict[str, Right]]:
        """Search by text: recall in percent, and found or not per caption."""
        ranks = self._ranks(name, self.augmented(name, bank, k=k, shuffle=shuffle))
        right = {f"{name}_r{at}": ranks < at for at in _RANKS}
        return {key: 100 * float(values.mean()) for key, values in right.items()}, right

    def _ranks(self, name: str, rows: Tensor) -> npt.NDArray[Any]:
        """Rank the items per caption, from 0: (T,)."""
        test = self.tests[name]
        if name not in self._texts:
            self._texts[name] = self.texts(test.captions)
        scores = (self._texts[name] @ pooled(rows, test).T).numpy()
        wanted = (test.owners[:, None] == torch.arange(test.items)).numpy()
        return np.asarray(ranks_of(scores, wanted)) - 1


def pooled(rows: Tensor, test: TestSet) -> Tensor:
    """Average the embeddings (n, D) of the rows of each item: (m, D), L2-normalised."""
    if test.items == len(rows):
        return rows
    sums = torch.zeros(test.items, rows.shape[1]).index_add_(0, test.item, rows * test.weights[:, None])
    return F.normalize(sums, dim=-1)


def probe(train: Tensor, labels: Tensor, test: Tensor, wanted: Tensor) -> Right:
    """Fit a logistic regression with fixed regularisation, scaled as in `impart.evaluate.tasks.probe`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean = train.mean(0)
    spread = float((train - mean).square().mean().sqrt().clamp(min=1e-12))
    model = LogisticRegression(C=_PROBE_C, max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(((train - mean) / spread).numpy(), labels.numpy())
    found: Right = model.predict(((test - mean) / spread).numpy()) == wanted.numpy()
    return found
