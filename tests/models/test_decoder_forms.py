"""Decoders that transformers has no class for, against their papers in float64, token by token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from isoflop.models.config import DECODER_FORMS, DecoderConfig, ExpertsConfig
from isoflop.models.documents import positions_in_documents
from isoflop.models.layers import alibi_slopes

GPT2 = DECODER_FORMS["gpt2"]
FORMS = {
    "sinusoids": {**GPT2, "positions": "sinusoidal"},
    "ALiBi": {**GPT2, "positions": "alibi"},
    "ALiBi, window": {**GPT2, "positions": "alibi", "window": 4},
    "learned, window": {**GPT2, "window": 4},
    "relative": {**GPT2, "norm": "rms", "positions": "relative"},
    "post-norm": {**GPT2, "post_norm": True, "positions": "sinusoidal"},
    "shared experts": {
        **GPT2, "experts": ExpertsConfig(n_experts=5, top_k=2, d_expert=12, n_shared=2),
    },
    "shares as they are": {
        **GPT2, "experts": ExpertsConfig(n_experts=5, top_k=2, d_expert=12, normalise=False),
    },
}  # fmt: skip


class _Definition:
    """Logits (T, V) of one sequence, with loops where the papers have indices."""

    def __init__(self, config: DecoderConfig, weights: dict[str, np.ndarray]) -> None:
        self.c, self.w = config, weights

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        if self.c.norm == "layer":
            x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.c.norm_eps)
        return x * self.w[f"{name}.weight"] + self.w.get(f"{name}.bias", 0.0)

    def sinusoid(self, place: int) -> np.ndarray:
        width = self.c.d_model
        out = np.empty(width)
        for i in range(width):
            angle = place / 10_000 ** (2 * (i // 2) / width)
            out[i] = math.cos(angle) if i % 2 else math.sin(angle)
        return out.astype(np.float32).astype(np.float64)  # the model keeps its table so

    def attention(self, name: str, x: np.ndarray) -> np.ndarray:
        heads, width = self.c.n_heads, self.c.head_dim
        q, k, v = (self.linear(f"{name}.{p}_proj", x).reshape(len(x), heads, width) for p in "qkv")
        mixed = np.zeros((len(x), heads, width))
        for head in range(heads):
            slope = 2 ** (-8 * (head + 1) / heads)
            for t in range(len(x)):
                first = 0 if self.c.window is None else max(0, t - self.c.window + 1)
                score = [self.score(name, q[t, head], k[s, head], head, t - s) for s in
                         range(first, t + 1)]  # fmt: skip
                if self.c.positions == "alibi":
                    score = [z - slope * (t - first - i) for i, z in enumerate(score)]
                share = np.exp(np.array(score) - max(score))
                mixed[t, head] = share @ v[first : t + 1, head] / share.sum()
        return self.linear(f"{name}.o_proj", mixed.reshape(len(x), -1))

    def score(self, name: str, q: np.ndarray, k: np.ndarray, head: int, distance: int) -> float:
        found = q @ k
        if self.c.positions == "relative":
            r = self.w[f"{name}.relative.r_proj.weight"] @ self.sinusoid(distance)
            r = r.reshape(self.c.n_heads, -1)[head]
            found += self.w[f"{name}.relative.content_bias"][head] @ k
            found += (q + self.w[f"{name}.relative.distance_bias"][head]) @ r
        return float(found / math.sqrt(self.c.head_dim))

    def feed_forward(self, name: str, x: np.ndarray) -> np.ndarray:
        if self.c.experts is None:
            up = self.linear(f"{name}.up_proj", x)
            gelu = 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
            return self.linear(f"{name}.down_proj", gelu)
        return np.stack([self.experts(name, row) for row in x])

    def experts(self, name: str, x: np.ndarray) -> np.ndarray:
        experts = self.c.experts
        score = np.exp(self.w[f"{name}.gate.weight"] @ x)
        share = score / score.sum()
        best = np.argsort(-share)[: experts.top_k]
        total = share[best].sum() if experts.normalise else 1.0
        out = np.zeros(len(x))
        for e in best:
            parts = (self.w[f"{name}.experts.{p}_proj"][e] for p in ("gate", "up", "down"))
            out += share[e] / total * self.swiglu(x, *parts)
        if experts.n_shared:
            out += self.swiglu(
                x, *(self.w[f"{name}.shared.{p}_proj.weight"] for p in ("gate", "up", "down"))
            )
        return out

    def swiglu(
        self, x: np.ndarray, gate: np.ndarray, up: np.ndarray, down: np.ndarray
    ) -> np.ndarray:
        opened = gate @ x
        return down @ (opened / (1 + np.exp(-opened)) * (up @ x))

    def logits(self, ids: np.ndarray) -> np.ndarray:
        x = self.w["embed_tokens.weight"][ids]
        if self.c.positions == "learned":
            x = x + self.w["embed_positions.weight"][: len(ids)]
        if self.c.positions == "sinusoidal":
            x = x * math.sqrt(self.c.d_model) + [self.sinusoid(t) for t in range(len(ids))]
        for layer in range(self.c.n_layers):
            p = f"layers.{layer}"
            for part, norm, name in (
                (self.attention, f"{p}.input_layernorm", f"{p}.self_attn"),
                (self.feed_forward, f"{p}.post_attention_layernorm", f"{p}.mlp"),
            ):
                if self.c.post_norm:
                    x = self.norm(norm, x + part(name, x))
                else:
                    x = x + part(name, self.norm(norm, x))
        x = x if self.c.post_norm else self.norm("norm", x)
        return x @ self.w.get("lm_head.weight", self.w["embed_tokens.weight"]).T


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_logits_equal_the_definition_in_float64(form, decoder_of):
    decoder = decoder_of(**FORMS[form]).double()
    ids = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(0))
    weights = {name: p.numpy() for name, p in decoder.named_parameters()}
    found = decoder(ids).numpy()
    assert found.std() > 0.3
    for row in range(2):
        expected = _Definition(decoder.config, weights).logits(ids[row].numpy())
        np.testing.assert_allclose(found[row], expected, atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_single_precision_is_off_by_its_rounding_alone(form, decoder_of):
    decoder = decoder_of(**FORMS[form])
    ids = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(0))
    single = decoder(ids)
    torch.testing.assert_close(single.double(), decoder.double()(ids), atol=1e-5, rtol=0)


def test_alibi_slopes_of_other_than_a_power_of_two_are_those_of_the_published_code():
    # Press et al. 2022: 8 heads have 1/2 … 1/256; 12 take four of the 16 heads' odd ones besides.
    eight = [2.0**-i for i in range(1, 9)]
    np.testing.assert_allclose(alibi_slopes(8), eight)
    np.testing.assert_allclose(alibi_slopes(12), eight + [2 ** -(i + 0.5) for i in range(4)])
    np.testing.assert_allclose(alibi_slopes(1), [2.0**-8])


def test_places_count_from_the_start_of_each_document():
    document = torch.tensor([[0, 0, 0, 1, 1, 2], [5, 5, -1, -1, -1, -1]])
    assert positions_in_documents(document).tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 2, 3]]


@torch.no_grad()
def test_a_window_hides_what_lies_before_it(decoder_of):
    # Two layers of window 4 see 3 + 3 tokens back: the eighth from the end cannot matter.
    decoder = decoder_of(window=4)
    ids = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(0))
    ids[1, 5:] = ids[0, 5:]
    ids[1, :5] = (ids[0, :5] + 1) % 97
    logits = decoder(ids)
    assert torch.equal(logits[0, 11], logits[1, 11])
    assert (logits[0, 9] - logits[1, 9]).abs().max() > 1e-3
