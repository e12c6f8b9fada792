"""Directories of transformers: in with equal logits, out again with every bit of every tensor."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from isoflop.core.artifact import read_manifest
from isoflop.core.errors import ArtifactError
from isoflop.models.convert import export_model, import_model, load_model, save_model

transformers = pytest.importorskip("transformers")

ROTARY = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": [2, 3],
}  # fmt: skip
GPT = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
GPT_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
BERT = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 64,
}  # fmt: skip
T5 = {
    "vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}  # fmt: skip
LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
SOURCES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaForCausalLM", ROTARY),
    "Llama 3.1": ("LlamaForCausalLM", {**ROTARY, "rope_parameters": LLAMA_3}),
    "Qwen2": ("Qwen2ForCausalLM", ROTARY),
    "Qwen3": ("Qwen3ForCausalLM", {**ROTARY, "tie_word_embeddings": True}),
    "Qwen3-MoE": (
        "Qwen3MoeForCausalLM",
        {**ROTARY, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
         "norm_topk_prob": True},
    ),
    "Mistral": ("MistralForCausalLM", {**ROTARY, "sliding_window": 7}),
    "Mixtral": (
        "MixtralForCausalLM", {**ROTARY, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "GPT-2": ("GPT2LMHeadModel", {**GPT, **GPT_IDS}),
    "GPT-1": ("OpenAIGPTLMHeadModel", {**GPT, "bos_token_id": 1, "eos_token_id": 2}),
    "BERT": ("BertForPreTraining", BERT),
    "BERT without pairs": ("BertForMaskedLM", BERT),
    "T5 1.0": ("T5ForConditionalGeneration", T5),
}  # fmt: skip


def _made(name: str, directory: Path, dtype: torch.dtype = torch.float32, **how: Any) -> Any:
    """A random model of transformers, saved; dropout off."""
    cls_name, sizes = SOURCES[name]
    cls = getattr(transformers, cls_name)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = cls(cls.config_class(**sizes)).to(dtype).eval()
        with torch.no_grad():
            for key, parameter in theirs.named_parameters():
                if key.endswith("bias") or parameter.ndim == 1:
                    parameter += 0.3 * torch.randn_like(parameter)
        theirs.save_pretrained(directory, **how)
    return theirs


def _stored(directory: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in directory.glob("*.safetensors"):
        found |= load_file(path)
    return found


def _assert_same(one: Path, other: Path) -> None:
    ours, theirs = _stored(one), _stored(other)
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        assert tensor.dtype == theirs[key].dtype
        assert torch.equal(tensor, theirs[key]), key


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    if type(model).__module__.startswith("isoflop"):
        return model(ids, ids) if type(model).__name__ == "EncoderDecoder" else model(ids)
    if model.config.is_encoder_decoder:
        return model(input_ids=ids, decoder_input_ids=ids).logits
    out = model(ids)
    return out.logits if hasattr(out, "logits") else out.prediction_logits


@torch.no_grad()
@pytest.mark.parametrize("name", SOURCES)
def test_a_directory_comes_in_with_equal_logits_and_goes_out_unchanged(name, tmp_path):
    theirs = _made(name, tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "back")
    _assert_same(tmp_path / "back", tmp_path / "theirs")
    ids = torch.randint(97, (2, 20), generator=torch.Generator().manual_seed(0))
    expected = _logits(theirs, ids)
    assert expected.std() > 0.01
    torch.testing.assert_close(
        _logits(load_model(tmp_path / "ours"), ids), expected, atol=1e-5, rtol=0
    )
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    assert torch.equal(_logits(again, ids), expected)
    read_manifest(tmp_path / "ours", "model", verify=True)
    before, after = (
        json.loads((tmp_path / d / "config.json").read_text()) for d in ("theirs", "back")
    )
    for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
        assert after.get(key) == before.get(key)


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "Qwen3-MoE"])
def test_half_precision_keeps_its_bits_and_is_float32_in_memory(name, tmp_path):
    _made(name, tmp_path / "theirs", torch.bfloat16)
    import_model(tmp_path / "theirs", tmp_path / "ours")
    _assert_same(tmp_path / "ours", tmp_path / "theirs")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert {p.dtype for p in load_model(tmp_path / "ours").parameters()} == {torch.float32}


def test_weights_in_many_files_are_read(tmp_path):
    _made("Llama", tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    import_model(tmp_path / "theirs", tmp_path / "ours")
    _assert_same(tmp_path / "ours", tmp_path / "theirs")


def test_an_untied_t5_keeps_its_output_layer(t5_of, tmp_path):
    save_model(t5_of(activation="geglu", tie_embeddings=False), tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "out")
    _assert_same(tmp_path / "out", tmp_path / "ours")
    assert "lm_head.weight" in _stored(tmp_path / "out")


def test_names_and_constants_of_old_versions_are_understood(tmp_path):
    theirs = _made("GPT-2", tmp_path / "theirs")
    weights = {k.removeprefix("transformer."): v for k, v in _stored(tmp_path / "theirs").items()}
    weights["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    weights["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, tmp_path / "theirs" / "model.safetensors")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        import_model(tmp_path / "theirs", tmp_path / "ours")
        found = load_model(tmp_path / "ours")(ids)
        torch.testing.assert_close(found, theirs(ids).logits, atol=1e-5, rtol=0)


def test_berts_with_gamma_and_beta_and_a_second_embedding_are_understood(tmp_path):
    _made("BERT", tmp_path / "theirs")
    weights = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): v
        for k, v in _stored(tmp_path / "theirs").items()
    }
    weights["cls.predictions.decoder.weight"] = weights[
        "bert.embeddings.word_embeddings.weight"
    ].clone()
    save_file(weights, tmp_path / "theirs" / "model.safetensors")
    import_model(tmp_path / "theirs", tmp_path / "ours")
    weights["cls.predictions.decoder.weight"] += 1
    save_file(weights, tmp_path / "theirs" / "model.safetensors")
    with pytest.raises(ArtifactError, match="but they are different"):
        import_model(tmp_path / "theirs", tmp_path / "ours")


def test_a_tokenizer_comes_along_without_code(tmp_path):
    _made("Llama", tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.json").write_text(
        json.dumps({"added_tokens": [{"id": 96, "content": "</s>"}], "model": {"vocab": {"a": 0}}})
    )
    (tmp_path / "theirs" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": "evil.Evil"}})
    )
    (tmp_path / "theirs" / "evil.py").write_text("raise SystemExit('run')")
    (tmp_path / "theirs" / "pytorch_model.bin").write_bytes(b"pickle")
    import_model(tmp_path / "theirs", tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "tokenizer_config.json").read_text())
    assert written == {"tokenizer_class": "PreTrainedTokenizerFast"}
    assert {p.name for p in (tmp_path / "ours").iterdir()} == {
        "README.md", "config.json", "generation_config.json", "manifest.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_what_transformers_has_no_class_for_is_refused_at_export(decoder_of, tmp_path):
    save_model(decoder_of(positions="alibi"), tmp_path / "ours")
    with pytest.raises(ArtifactError, match="no class for a decoder of this form"):
        export_model(tmp_path / "ours", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Llama", {"mlp_bias": True}, "mlp_bias"),
        ("Llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("Llama", {"num_hidden_layers": 10**12}, "it holds 2 layers"),
        ("Llama", {"num_attention_heads": 0}, "n_heads = 0"),
        ("Llama", {"max_position_embeddings": 10**9}, "max_position_embeddings is"),
        ("Qwen3-MoE", {"num_experts": 10**12, "num_local_experts": 10**12}, "it holds 4 experts"),
        ("Qwen3-MoE", {"decoder_sparse_step": 2}, "decoder_sparse_step"),
        ("Qwen3-MoE", {"num_experts_per_tok": 9}, "top_k = 9 is more than n_experts = 4"),
        ("GPT-2", {"activation_function": "relu"}, "activation_function"),
        ("GPT-2", {"n_head": 5}, "n_embd = 32 is not a multiple of n_head = 5"),
        ("GPT-2", {"n_positions": 63}, r"wpe\.weight is \[64, 32\] of F32"),
        ("BERT", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("BERT", {"type_vocab_size": 3}, r"token_type_embeddings\.weight is \[2, 32\]"),
        ("T5 1.0", {"feed_forward_proj": "gated-silu"}, "feed_forward_proj"),
        ("T5 1.0", {"num_decoder_layers": 7}, "it holds 2 layers, but config.json says 7"),
    ],
)
def test_what_does_not_fit_is_told_by_name(name, change, message, tmp_path):
    _made(name, tmp_path / "theirs")
    path = tmp_path / "theirs" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactError, match=message):
        load_model(tmp_path / "theirs")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "../../secret.safetensors"}}, "not a safetensors file beside it"),
        ({"weight_map": {"a": "model.bin"}}, "not a safetensors file beside it"),
        ({"weight_map": {"a": "gone.safetensors"}}, "there is no gone.safetensors"),
        ({"weight_map": ["a"]}, "no weight_map"),
        ([], "no weight_map"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(index, message, tmp_path):
    _made("Llama", tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match=message):
        load_model(tmp_path / "theirs")
