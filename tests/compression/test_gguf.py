"""GGUF files read back by the `gguf` package, and by llama.cpp where it is installed."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isoflop.cli.main import main
from isoflop.compression.gguf import export_gguf, interleaved, tensors
from isoflop.core.errors import ArtifactError
from isoflop.data.shards import Shards
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.config import DECODER_FORMS, DecoderConfig, ExpertsConfig
from isoflop.models.convert import load_decoder, save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise

gguf = pytest.importorskip("gguf")

FORMS: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3moe": {"experts": ExpertsConfig(4, 2, 32)},
    "llama": {**DECODER_FORMS["llama"], "tie_embeddings": False, "n_kv_heads": 1},
    "gpt2": dict(DECODER_FORMS["gpt2"]),
}


@pytest.fixture
def model_of(tmp_path: Path, tiny_shards: Shards) -> Callable[..., Path]:
    def make(**form: Any) -> Path:
        sizes = {"d_model": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "head_dim": 32}
        vocab = tiny_shards.vocab_size + 2  # two rows without a token
        config = DecoderConfig(vocab, **{**sizes, "d_ff": 96, "max_seq_len": 64, **form})
        decoder = Decoder(config)
        initialise(decoder, 3)
        draw = torch.Generator().manual_seed(4)
        for parameter in decoder.parameters():  # no gains of one, no biases of zero
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
        save_model(decoder, tmp_path / "model", tiny_shards.tokenizer_directory)
        return tmp_path / "model"

    return make


def fields(path: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}


def stored(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    reader = gguf.GGUFReader(path)
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}


@pytest.mark.parametrize("name", FORMS)
def test_every_weight_of_every_form_is_in_the_file(
    name: str, model_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = model_of(**FORMS[name])
    summary = export_gguf(source, tmp_path / "m.gguf", "f32")
    found, decoder = stored(tmp_path / "m.gguf"), load_decoder(source)
    assert summary.architecture == name == fields(tmp_path / "m.gguf")["general.architecture"]
    assert sum(a.size for a in found.values()) == sum(p.numel() for p in decoder.parameters())
    for tensor, array in tensors(decoder):
        assert np.array_equal(found[tensor], array), tensor
    # By hand, so that the names are not only those the code gave:
    own = dict(decoder.named_parameters())
    experts = name == "qwen3moe"
    down = f"layers.1.mlp.{'experts.down_proj' if experts else 'down_proj.weight'}"
    theirs = f"blk.1.ffn_down{'_exps' if experts else ''}.weight"
    assert np.array_equal(found[theirs], own[down].detach().numpy())
    assert ("output.weight" in found) == (name == "llama")
    if name == "gpt2":
        q, k, v = (own[f"layers.0.self_attn.{p}_proj.weight"].detach() for p in "qkv")
        assert np.array_equal(found["blk.0.attn_qkv.weight"], np.concatenate([q, k, v]))


@pytest.mark.parametrize(("type", "error"), [("f16", 1e-3), ("q8_0", 1 / 127), ("q4_0", 1 / 7)])
def test_narrow_types_stay_within_their_step(
    type: Any, error: float, model_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = model_of()
    sizes = []
    for each in ("f32", type):
        sizes.append(export_gguf(source, tmp_path / f"{each}.gguf", each).bytes)
    found = stored(tmp_path / f"{type}.gguf")
    for name, array in tensors(load_decoder(source)):
        most = 0 if array.ndim == 1 else error * np.abs(array).max()
        assert np.abs(found[name].reshape(array.shape) - array).max() <= most, name
    assert sizes[1] < sizes[0]


def test_shape_and_tokenizer_are_in_the_metadata(
    model_of: Callable[..., Path], tmp_path: Path, tiny_shards: Shards
) -> None:
    source = model_of()
    export_gguf(source, tmp_path / "m.gguf")
    said, config = fields(tmp_path / "m.gguf"), load_decoder(source).config
    raw = json.loads((source / "tokenizer.json").read_text())
    assert said["qwen3.block_count"] == 2
    assert said["qwen3.context_length"] == 64
    assert said["qwen3.rope.freq_base"] == config.rope_theta
    assert said["qwen3.attention.key_length"] == 32
    assert said["tokenizer.ggml.model"] == "gpt2"
    assert said["tokenizer.ggml.pre"] == "qwen2"
    assert said["tokenizer.ggml.tokens"][: len(raw["model"]["vocab"])] == list(
        raw["model"]["vocab"]
    )
    assert len(said["tokenizer.ggml.tokens"]) == config.vocab_size
    assert said["tokenizer.ggml.token_type"][-5:] == [3, 3, 3, 5, 5]
    assert said["tokenizer.ggml.merges"] == [" ".join(pair) for pair in raw["model"]["merges"]]
    assert said["tokenizer.ggml.eos_token_id"] == tiny_shards.eos_id


def test_halves_of_a_head_are_interleaved() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert interleaved(rows, 4)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_what_llama_cpp_does_not_know_is_refused_and_leaves_nothing(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = model_of(window=8)
    with pytest.raises(ArtifactError, match="a window of attention"):
        export_gguf(source, tmp_path / "m.gguf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_the_command_writes_the_file(
    model_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = model_of(), tmp_path / "m.gguf"
    assert main(["export", str(source), "--to", "gguf", "--type", "q8_0", "-o", str(out)]) == 0
    assert "qwen3" in capsys.readouterr().out
    assert out.exists()


# --- llama.cpp -----------------------------------------------------------------------------


def strings(n: int) -> list[str]:
    """English, Chinese, numbers, emoji and spaces of many kinds."""
    draw = random.Random(1)
    words = ["the", "loss", "of a", "model,", "don't", "损失", "模型的。", "12345", "x=1;"]
    words += ["🙂", "👩\u200d🔬", "é\n", "\t", "  ", "..."]
    return [
        "".join(draw.choice(words) + draw.choice([" ", "", "  ", "\n"]) for _ in range(8))
        for _ in range(n)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_llama_cpp_reads_the_same_tokens_and_writes_the_same_text(
    name: str, model_of: Callable[..., Path], tmp_path: Path
) -> None:
    """Set NODE_LLAMA_CPP to the directory of an installed npm package node-llama-cpp."""
    package, node = os.environ.get("NODE_LLAMA_CPP"), shutil.which("node")
    if package is None or node is None:
        pytest.skip("NODE_LLAMA_CPP does not name an installed node-llama-cpp")
    source = model_of(**FORMS[name])
    export_gguf(source, tmp_path / "m.gguf", "f32")
    tokenizer, decoder = load_tokenizer(source), load_decoder(source)
    texts = strings(1000)
    ids = [tokenizer.encode(text) for text in texts]
    prompts = [each[:12] for each in ids[:5]]
    asked, answers = tmp_path / "asked.json", tmp_path / "answers.json"
    asked.write_text(json.dumps({"texts": texts, "prompts": prompts, "tokens": 24}))
    script = Path(__file__).with_name("llama.mjs")
    command = [node, str(script), package, str(tmp_path / "m.gguf"), str(asked), str(answers)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(answers.read_text())
    assert said["ids"] == ids
    # Weights drawn at random have near ties, and llama.cpp caches keys and values as float16: what
    # it wrote must be, to that precision, the likeliest for us after the same tokens.
    for prompt, continued in zip(prompts, said["continued"], strict=True):
        with torch.no_grad():
            logits = decoder(torch.tensor([prompt + continued]))[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(continued)[:, None])[:, 0]
        assert (logits.amax(1) - chosen).max() < 0.02 * logits.std()
