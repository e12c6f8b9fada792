"""The sampler against numpy and scipy: what is kept, how often it comes, and what it depends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from isoflop.core.errors import RecipeError
from isoflop.serving.sampler import (
    Sampling,
    adjusted,
    choose,
    distribution,
    log_softmax,
    uniform,
)

V = 23


def logits_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, V)


def no_counts() -> np.ndarray:
    return np.zeros(V, dtype=np.int64)


def full(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    ids, probability = distribution(logits, sampling)
    out = np.zeros(len(logits))
    out[ids] = probability
    return out


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_without_filters_the_distribution_is_the_softmax(temperature: float) -> None:
    got = full(logits_of(1), Sampling(temperature=temperature))
    np.testing.assert_allclose(got, special.softmax(logits_of(1) / temperature), rtol=1e-12)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 999), st.sampled_from([0, 1, 4, 30]), st.floats(0.05, 1), st.floats(0, 1),
    st.floats(0.2, 3),
)  # fmt: skip
def test_the_filters_keep_what_transformers_keeps(
    seed: int, top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    transformers = pytest.importorskip("transformers")
    logits = logits_of(seed)
    scores = torch.tensor(logits[None])
    warpers = [transformers.TemperatureLogitsWarper(temperature)]
    warpers += [transformers.TopKLogitsWarper(top_k)] if top_k else []
    warpers += [transformers.TopPLogitsWarper(top_p)] if top_p < 1 else []
    warpers += [transformers.MinPLogitsWarper(min_p)] if min_p > 0 else []
    for warper in warpers:
        scores = warper(None, scores)
    wanted = scores.softmax(-1)[0].numpy()
    got = full(logits, Sampling(temperature, top_k, top_p, min_p))
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


def test_ties_at_the_edge_of_top_k_go_to_the_lower_ids() -> None:
    ids, probability = distribution(np.zeros(V), Sampling(top_k=5))
    assert ids.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(probability, 0.2)


def test_tokens_come_as_often_as_the_distribution_says() -> None:
    sampling = Sampling(temperature=1.3, top_k=12, top_p=0.9, seed=7)
    wanted = full(logits_of(3), sampling)
    drawn = [choose(logits_of(3), sampling, 0, position) for position in range(20_000)]
    counts = np.bincount(drawn, minlength=V)
    assert counts[wanted == 0].sum() == 0
    kept = wanted > 0
    assert stats.chisquare(counts[kept], 20_000 * wanted[kept]).pvalue > 1e-3


def test_the_random_numbers_are_uniform_and_unrelated_across_seed_choice_and_position() -> None:
    runs = {
        "seed": [uniform(i, 0, 0) for i in range(4000)],
        "choice": [uniform(0, i, 0) for i in range(4000)],
        "position": [uniform(0, 0, i) for i in range(4000)],
    }
    for name, run in runs.items():
        assert stats.kstest(run, "uniform").pvalue > 1e-3, name
        assert abs(stats.spearmanr(run[:-1], run[1:]).statistic) < 0.06, name
    assert abs(np.corrcoef(runs["seed"], runs["position"])[0, 1]) < 0.06


def test_temperature_zero_takes_the_likeliest_whatever_the_seed() -> None:
    for seed in range(20):
        sampling = Sampling(temperature=0, top_k=3, seed=seed)
        assert choose(logits_of(5), sampling, 0, seed) == int(logits_of(5).argmax())


def test_penalties_and_bias_follow_their_formulas() -> None:
    logits, prompt, answer = logits_of(9), no_counts(), no_counts()
    prompt[[2, 3]], answer[[3, 4]] = 1, (2, 5)
    got = adjusted(
        logits,
        Sampling(
            repetition_penalty=1.5, presence_penalty=0.25, frequency_penalty=-0.5,
            logit_bias={4: 3.0, 0: -100.0},
        ),
        prompt, answer,
    )  # fmt: skip
    wanted = []
    for token, logit in enumerate(logits):
        value = logit + {4: 3.0, 0: -100.0}.get(token, 0.0)
        if prompt[token] or answer[token]:
            value = value / 1.5 if value > 0 else value * 1.5
        value += 0.5 * answer[token] - 0.25 * (answer[token] > 0)
        wanted.append(value)
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_repetition_is_penalised_as_in_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    prompt = no_counts()
    prompt[[1, 8, 20]] = 1
    penalise = transformers.RepetitionPenaltyLogitsProcessor(1.7)
    wanted = penalise(torch.tensor([[1, 8, 20]]), torch.tensor(logits_of(4)[None]))[0].numpy()
    got = adjusted(logits_of(4), Sampling(repetition_penalty=1.7), prompt, no_counts())
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_log_probabilities_are_scipys() -> None:
    np.testing.assert_allclose(log_softmax(logits_of(2)), special.log_softmax(logits_of(2)))


def test_values_out_of_range_are_all_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Sampling(temperature=-1, top_k=-2, top_p=0, min_p=2, logit_bias={1: 101.0})
    for name in ("temperature", "top_k", "top_p", "min_p", "logit_bias"):
        assert name in str(caught.value)
    with pytest.raises(RecipeError, match="temperature = nan"):
        Sampling(temperature=float("nan"))
