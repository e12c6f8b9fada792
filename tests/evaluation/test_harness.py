"""The adapter against lm-evaluation-harness's own `hf` backend on the same directory."""

from __future__ import annotations

import sys
import warnings

import pytest

from isoflop.core.errors import RecipeError
from isoflop.data.word_problems import word_problem

TEXTS = [word_problem(11, i)[0] for i in range(12)]


def test_without_the_harness_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "isoflop.evaluation.harness", raising=False)
    with pytest.raises(RecipeError, match=r"isoflop\[eval\]"):
        __import__("isoflop.evaluation.harness")


@pytest.fixture(scope="module")
def both(model_directory):
    """(our adapter, the harness's own) on one directory, and its class of requests."""
    with warnings.catch_warnings():  # other people's, at import
        warnings.simplefilter("ignore")
        pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
        try:
            from lm_eval.api.instance import Instance
            from lm_eval.models.huggingface import HFLM
        except ImportError as error:
            pytest.skip(f"the harness lacks something: {error}")
        from isoflop.evaluation.harness import IsoflopLM

        theirs = HFLM(pretrained=str(model_directory), device="cpu", dtype="float32", batch_size=4)
    return IsoflopLM(model_directory), theirs, Instance


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_harness_gets_the_same_answers_from_either_backend(both):
    ours, theirs, instance = both

    def ask(kind, arguments):
        requests = [instance(kind, {}, args, i) for i, args in enumerate(arguments)]
        return [getattr(model, kind)(requests, disable_tqdm=True) for model in (ours, theirs)]

    pairs = [(text[:40], text[40:60]) for text in TEXTS]
    pairs += [("", "Tom has 3 apples."), ("Tom has ", "three"), (TEXTS[0] * 3, " A")]
    mine, wanted = ask("loglikelihood", pairs)
    assert [a for a, _ in mine] == pytest.approx([a for a, _ in wanted], abs=1e-4)
    assert [hit for _, hit in mine] == [hit for _, hit in wanted]
    mine, wanted = ask("loglikelihood_rolling", [(text * 3,) for text in TEXTS])
    assert mine == pytest.approx(wanted, rel=1e-6)
    options = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}
    mine, wanted = ask("generate_until", [(text[:50], options) for text in TEXTS])
    assert mine == wanted
