"""Batched writing against one prompt at a time without a cache, and sampling against its law."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from isoflop.core.errors import DataError, RecipeError
from isoflop.data.word_problems import word_problem
from isoflop.evaluation.generation import Sampling, generate_until

WINDOW = 64
PROMPTS = [word_problem(5, i)[0][: 9 + 7 * i] for i in range(9)] + ["", "Q"]


@torch.no_grad()
def _alone(subject, prompt, stop, most):
    """Greedy text, each token from a whole reading of prompt and text."""
    ids = subject.tokenizer.encode(prompt) or [subject.start_id]
    ids = ids[-(WINDOW - most) :]
    new = []
    while len(new) < most:
        new.append(int(subject.decoder(torch.tensor([ids + new]))[0, -1].argmax()))
        if new[-1] == subject.tokenizer.eos_id:
            return subject.tokenizer.decode(new[:-1]), "end"
        text = subject.tokenizer.decode(new)
        cuts = [text.index(s) for s in stop if s in text]
        if cuts:
            return text[: min(cuts)], "stop"
    return text, "length"


@pytest.fixture(scope="module")
def greedy(subject):
    """What each prompt alone is continued with, and stop strings that some of it holds."""
    free = [_alone(subject, prompt, (), 12)[0] for prompt in PROMPTS]
    stop = (free[0][3:5], free[4][6:9])
    return stop, [_alone(subject, prompt, stop, 12) for prompt in PROMPTS]


def test_every_prompt_is_continued_as_by_whole_readings(subject, greedy):
    stop, wanted = greedy
    found = generate_until(subject, PROMPTS, stop, 12)
    assert [(one.text, one.finish) for (one,) in found] == wanted
    assert {"stop", "length"} <= {finish for _, finish in wanted}
    assert any(one.truncated for (one,) in found)


def test_a_text_does_not_depend_on_its_company(subject, greedy):
    stop, _ = greedy
    sampling = Sampling(temperature=0.9, seed=3)
    together = generate_until(subject, PROMPTS, stop, 12, sampling, samples=2)
    turned = generate_until(
        replace(subject, batch_tokens=100), PROMPTS[::-1], stop, 12, sampling, samples=2
    )
    assert turned[::-1] == together
    assert generate_until(subject, PROMPTS[3:4], stop, 12, sampling, samples=2) == together[3:4]


def test_samples_follow_the_model_and_the_seed(subject):
    prompt = "Question: Tom has"
    sampling = Sampling(temperature=0.5, seed=1)
    (found,) = generate_until(subject, [prompt], (), 1, sampling, samples=2000)
    assert generate_until(subject, [prompt], (), 1, sampling, samples=3)[0] == found[:3]
    logits = subject.decoder(torch.tensor([subject.tokenizer.encode(prompt)]))[0, -1]
    belief = (logits.detach().double() / 0.5).softmax(-1)
    top = int(belief.argmax())
    share = Counter(one.text for one in found)[subject.tokenizer.decode([top])] / 2000
    p = float(belief[top])
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 2000) + 1e-9


def test_options_that_make_no_text_are_refused(subject):
    with pytest.raises(DataError, match="no room for a prompt"):
        generate_until(subject, ["a"], (), WINDOW)
    with pytest.raises(RecipeError, match="empty stop string"):
        generate_until(subject, ["a"], ("",), 4)
    with pytest.raises(RecipeError, match="at least 1"):
        generate_until(subject, ["a"], (), 0)
