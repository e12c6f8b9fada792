"""Model directories: equal logits in transformers, back unchanged, damage named."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from isoflop.core.artifact import MANIFEST, read_manifest
from isoflop.core.errors import ArtifactError
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.convert import load_decoder, load_model, save_model

MIXED = "def f(x):\n    return x + 1  # 你好，世界 42\r\n\tnaïve — 🙂 <|endoftext|> Ünïcode\n\n"


def _byte_tokenizer(directory: Path) -> Path:
    """A byte-level BPE of 256 bytes, a few merges and `<|endoftext|>`, in the Hugging Face form."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"\p{N}| ?[^\s\p{N}]+|\s+"), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator([MIXED * 3], trainer)
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def _rewrite(directory: Path, name: str, change) -> Path:
    """Change a JSON file of a model that, without manifest, passes as another tool's."""
    (directory / MANIFEST).unlink(missing_ok=True)
    raw = json.loads((directory / name).read_text())
    change(raw)
    (directory / name).write_text(json.dumps(raw))
    return directory


def _reweigh(directory: Path, change) -> Path:
    (directory / MANIFEST).unlink(missing_ok=True)
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors")
    return directory


@pytest.fixture
def saved(decoder_of, tmp_path):
    save_model(decoder_of(n_kv_heads=2), tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_comes_back_bit_by_bit(any_form, tmp_path):
    save_model(any_form, tmp_path / "model")
    back = load_decoder(tmp_path / "model")
    assert back.config == any_form.config
    assert not back.training
    ids = torch.zeros(1, 5, dtype=torch.long)
    assert torch.equal(back(ids), any_form(ids)), "tables of positions too"
    ours, theirs = any_form.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (back.lm_head.weight is back.embed_tokens.weight) == back.config.tie_embeddings


@torch.no_grad()
def test_transformers_opens_a_saved_model_with_equal_logits(known_form, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_model(known_form, tmp_path / "model")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="transformers")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert [type(theirs).__name__] == theirs.config.architectures
    assert theirs.dtype == torch.float32
    ids = torch.randint(
        known_form.config.vocab_size, (3, 20), generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(known_form(ids), theirs(ids).logits, atol=2e-5, rtol=0)


def test_an_encoder_and_an_encoder_decoder_come_back_bit_by_bit(encoder_of, t5_of, tmp_path):
    untied = {"activation": "geglu", "tie_embeddings": False}
    for number, model in enumerate(
        (encoder_of(), encoder_of(pair_head=False), t5_of(), t5_of(**untied))
    ):
        save_model(model, tmp_path / str(number))
        back = load_model(tmp_path / str(number))
        assert back.config == model.config
        ours, theirs = model.state_dict(), back.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        with pytest.raises(ArtifactError, match="and a decoder is needed here"):
            load_decoder(tmp_path / str(number))


@torch.no_grad()
def test_a_model_saved_by_transformers_opens_here(any_decoder, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_model(any_decoder, tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    ids = torch.zeros(1, 5, dtype=torch.long)
    assert torch.equal(load_decoder(tmp_path / "theirs")(ids), any_decoder(ids))


def test_the_tokenizer_goes_along_and_gives_transformers_our_ids(decoder_of, tmp_path):
    transformers = pytest.importorskip("transformers")
    source = _byte_tokenizer(tmp_path / "tokenizer")
    save_model(decoder_of(vocab_size=300), tmp_path / "model", source)
    ours = load_tokenizer(tmp_path / "model")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    plain = MIXED.replace("<|endoftext|>", "")
    assert theirs(plain).input_ids == ours.encode(plain)
    assert theirs(MIXED).input_ids == ours.encode(MIXED, special=True)
    assert theirs.decode(theirs(plain).input_ids) == ours.decode(ours.encode(plain)) == plain
    assert theirs.eos_token_id == ours.eos_id
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "model" / name).read_text())["eos_token_id"] == ours.eos_id


def test_the_manifest_vouches_for_every_file_and_names_the_tokenizer(decoder_of, tmp_path):
    source = _byte_tokenizer(tmp_path / "tokenizer")
    save_model(decoder_of(vocab_size=300), tmp_path / "model", source, seed=7)
    manifest = read_manifest(tmp_path / "model", "model", verify=True)
    assert set(manifest.files) == {
        "config.json",
        "README.md",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert [entry["path"] for entry in manifest.inputs] == [str(source / "tokenizer.json")]
    assert manifest.seed == 7


def test_a_tied_matrix_is_stored_once_and_old_readers_find_the_rotary_base(saved):
    assert "lm_head.weight" not in load_file(saved / "model.safetensors")
    config = json.loads((saved / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000.0
    assert config["torch_dtype"] == config["dtype"] == "float32"


def test_a_tokenizer_with_more_ids_than_the_model_is_refused_and_nothing_written(
    decoder_of, tmp_path
):
    source = _byte_tokenizer(tmp_path / "tokenizer")
    with pytest.raises(ArtifactError, match="the model only 97 rows"):
        save_model(decoder_of(), tmp_path / "model", source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokenizer"]


def test_another_directory_is_not_overwritten(decoder_of, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ArtifactError, match="not an Isoflop artifact"):
        save_model(decoder_of(), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


# --- what cannot be opened -----------------------------------------------------------------


def test_a_changed_file_is_named_by_its_hash(saved):
    with open(saved / "model.safetensors", "rb+") as file:
        file.seek(-4, 2)
        file.write(b"\x00\x00\x80\x3f")
    with pytest.raises(ArtifactError, match=r"model\.safetensors: .*differs from its hash"):
        load_decoder(saved)


def test_a_cut_off_weight_file_is_an_error_with_a_way_out(saved):
    (saved / MANIFEST).unlink()
    whole = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ArtifactError, match="not a whole safetensors file"):
        load_decoder(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(architectures=["FalconForCausalLM"]), r"\['FalconForCausalLM'\]"),
        (lambda c: c.update(architectures="Qwen3ForCausalLM"), "the architecture is Qwen3"),
        (lambda c: c.update(attention_bias=True), "not known here: attention_bias"),
        (lambda c: c.update(rope_parameters={"rope_type": "yarn"}), "not known here: rope_type"),
        (lambda c: c.update(rope_scaling={"type": "linear"}, rope_parameters=None), "rope_type"),
        (
            lambda c: c.update(use_sliding_window=True, sliding_window=4, max_window_layers=1),
            "some",
        ),
        (lambda c: c.update(vocab_size=10**12, hidden_size=10**12), "are impossible"),
        (lambda c: c.update(quantization_config={}), "quantization_config"),
        (lambda c: c.pop("hidden_size"), "there is no hidden_size"),
        (lambda c: c.update(head_dim="8"), "head_dim is '8', not a number"),
        (lambda c: c.update(vocab_size=True), "vocab_size is True, not a number"),
        (lambda c: c.update(max_position_embeddings=10**12), "max_position_embeddings is 10000"),
        (lambda c: c.update(num_key_value_heads=3), "not a multiple of n_kv_heads = 3"),
        (lambda c: c.update(num_hidden_layers=3), "it holds 2 layers, but config.json says 3"),
        (lambda c: c.update(num_hidden_layers=10**12), "config.json says 1000000000000"),
        (lambda c: c.update(vocab_size=10**12), r"model\.embed_tokens\.weight is \[97, 32\]"),
        (lambda c: c.update(intermediate_size=50), r"gate_proj\.weight is \[48, 32\] of F32"),
        (lambda c: c.update(tie_word_embeddings=False), r"tensor lm_head\.weight is missing"),
    ],
)
def test_a_config_that_does_not_fit_is_told_by_name(saved, change, message):
    with pytest.raises(ArtifactError, match=message):
        load_decoder(_rewrite(saved, "config.json", change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.layers.1.mlp.up_proj.weight"), r"up_proj\.weight is missing"),
        (lambda w: w.update({"model.norm.bias": torch.zeros(2)}), r"model\.norm\.bias is not one"),
        (
            lambda w: w.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}),
            r"model\.norm\.weight is \[32\] of I8",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(saved, change, message):
    with pytest.raises(ArtifactError, match=message):
        load_decoder(_reweigh(saved, change))


def test_a_second_copy_of_the_tied_matrix_and_half_precision_are_read(saved):
    def change(weights):
        for name in weights:
            weights[name] = weights[name].bfloat16()
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()

    before = load_decoder(saved).embed_tokens.weight
    after = load_decoder(_reweigh(saved, change)).embed_tokens.weight
    assert after.dtype == torch.float32
    assert torch.equal(after, before.bfloat16().float())


def test_missing_parts_are_told(saved, tmp_path):
    with pytest.raises(ArtifactError, match="no such model directory"):
        load_decoder(tmp_path / "nowhere")
    (saved / MANIFEST).unlink()
    (saved / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"there is no model\.safetensors"):
        load_decoder(saved)
    (saved / "config.json").unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        load_decoder(saved)
