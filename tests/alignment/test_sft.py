from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from isoflop.alignment.chat import CHATML, INST, Chat, open_chat
from isoflop.alignment.run import LEFT_OUT
from isoflop.alignment.sft import SftBatch, sft
from isoflop.alignment.sft_data import open_conversations, spread
from isoflop.alignment.sft_recipe import SftRecipe
from isoflop.alignment.tools import answer
from isoflop.core.errors import ArtifactError, DataError, RecipeError, RunError
from isoflop.core.recipe import load_recipe
from isoflop.data.instruct import instruct
from isoflop.data.instruct_recipe import InstructRecipe, InstructSource
from isoflop.data.shards import Shards
from isoflop.data.tokenizer import load
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import load_decoder, save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise

SFT_TOML = """
[model]
path = "{model}"
[data]
set = "{set}"
[optimizer]
learning_rate = 1e-2
warmup_tokens = 512
[train]
epochs = 3
global_batch_tokens = 512
micro_batch_tokens = 256
eval_answers = 3
eval_rows = 20
max_new_tokens = 8
log_every = 1
checkpoint_every = 4
neftune_alpha = 5.0
threads = 1
tensorboard = false
"""


@pytest.fixture(scope="module")
def base(tiny_shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of a vocabulary of 300."""
    config = DecoderConfig(
        vocab_size=300, d_model=32, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=32, d_ff=64,
        max_seq_len=128,
    )  # fmt: skip
    model = Decoder(config)
    initialise(model, 1)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():  # no matrix may be zero, as those into the stream are at first
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.1, generator=draw)
    path = tmp_path_factory.mktemp("base") / "model"
    save_model(model, path, tiny_shards.tokenizer_directory)
    return path


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums by worked steps and by the calculator."""
    sums = {"kind": "generated", "problems": ("sum", "difference"), "count": 80}
    sources = (
        InstructSource(name="steps", **sums),
        InstructSource(name="calls", **sums, work="calculator"),
    )  # type: ignore[arg-type]
    out = tmp_path_factory.mktemp("sets") / "set"
    instruct(InstructRecipe(sources, held_out_fraction=0.2), out)
    return out


@pytest.fixture(scope="module")
def sft_toml(base: Path, small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "sft.toml"
    path.write_text(SFT_TOML.format(model=base, set=small_set))
    return path


@pytest.fixture(scope="module")
def recipe(sft_toml: Path) -> SftRecipe:
    return load_recipe(sft_toml, SftRecipe)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_decoder(run / "model").state_dict()


def test_killed_during_a_step_the_same_command_ends_with_the_same_bits(
    isoflop: Any, sft_toml: Path, tmp_path: Path, content_of: Callable[[Path], dict[str, Any]]
) -> None:
    whole = isoflop.run("sft", sft_toml, "-o", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    run = tmp_path / "run"
    checkpoints = run / "checkpoints"
    with isoflop.start("sft", sft_toml, "-o", run) as process:
        process.catch(lambda: any(checkpoints.glob("step_*")))
        assert process.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert not (run / "result.json").exists()
    done = isoflop.run("sft", sft_toml, "-o", run)
    assert done.returncode == 0, done.stderr
    assert content_of(run) == content_of(tmp_path / "whole")
    events = [json.loads(row)["event"] for row in (run / "events.jsonl").read_text().splitlines()]
    assert events == ["started", "resumed"]


def test_a_finished_run_has_a_model_that_says_how_it_is_talked_to(
    recipe: SftRecipe, tmp_path: Path, calibrated: None
) -> None:
    result = sft(recipe, tmp_path / "run")
    model = tmp_path / "run" / "model"
    assert (model / "chat_template.jinja").read_text() == CHATML
    said = json.loads((model / "tokenizer_config.json").read_text())
    assert (said["eos_token"], said["pad_token"]) == ("<|im_end|>", "<|endoftext|>")
    chat = open_chat(load(model))
    config = json.loads((model / "generation_config.json").read_text())
    assert config["eos_token_id"] == chat.stop_id != config["pad_token_id"]
    assert result.loss is not None
    assert result.exact_match is not None
    assert sft(recipe, tmp_path / "run") == result  # finished: nothing is done again
    rows = rows_of(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    other = replace(recipe, train=replace(recipe.train, epochs=4.0))
    with pytest.raises(RunError, match=r"train\.epochs was 3\.0, now 4\.0"):
        sft(other, tmp_path / "run")


def test_padding_is_never_the_end_of_an_answer(
    recipe: SftRecipe, tmp_path: Path, calibrated: None
) -> None:
    short = replace(recipe.train, epochs=0.1, eval_answers=0)
    start = replace(recipe.model, chat_template="inst")
    data = replace(recipe.data, unusable="skip")  # this form has no calls
    sft(replace(recipe, train=short, model=start, data=data), tmp_path / "run")
    said = json.loads((tmp_path / "run" / "model" / "tokenizer_config.json").read_text())
    assert (tmp_path / "run" / "model" / "chat_template.jinja").read_text() == INST
    assert said["eos_token"] == "<|endoftext|>" != said["pad_token"]


def test_layers_more_are_trained_and_saved_with_the_rest(
    recipe: SftRecipe, base: Path, tmp_path: Path, calibrated: None
) -> None:
    deeper = replace(recipe, train=replace(recipe.train, extra_layers=1, eval_answers=0))
    result = sft(deeper, tmp_path / "run")
    before, after = load_decoder(base), load_decoder(tmp_path / "run" / "model")
    assert after.config.n_layers == before.config.n_layers + 1
    assert (
        result.params_total == result.trained_params == sum(p.numel() for p in after.parameters())
    )
    top = after.state_dict()[f"layers.{before.config.n_layers}.self_attn.o_proj.weight"]
    assert top.abs().max() > 0


def test_layers_more_beside_adapters_are_refused(recipe: SftRecipe) -> None:
    with pytest.raises(RecipeError, match=r"leave lora\.rank out"):
        replace(
            recipe, train=replace(recipe.train, extra_layers=1), lora=replace(recipe.lora, rank=2)
        )


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_adapters_are_saved_and_merged_into_the_model(
    recipe: SftRecipe, tmp_path: Path, dora: bool, calibrated: None
) -> None:
    short = replace(recipe.train, epochs=0.5, eval_answers=0)
    lora = replace(recipe.lora, rank=4, dora=dora)
    result = sft(replace(recipe, train=short, lora=lora), tmp_path / "run")
    assert result.trained_params < result.params_total / 2
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()
    before, after = load_decoder(recipe.model.path).state_dict(), weights(tmp_path / "run")
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert all("proj" in name for name in changed)


def test_replayed_text_keeps_its_share_and_is_forgotten_less(
    recipe: SftRecipe, tiny_shards: Shards, tmp_path: Path, calibrated: None
) -> None:
    train = replace(recipe.train, epochs=4.0, eval_answers=0, neftune_alpha=None)
    plain = sft(replace(recipe, train=train), tmp_path / "plain")
    data = replace(recipe.data, replay=tiny_shards.directory, replay_share=0.5)
    mixed = sft(replace(recipe, train=train, data=data), tmp_path / "mixed")
    # Half of each step is text, so the same epochs take twice the steps.
    assert mixed.steps in (2 * plain.steps - 1, 2 * plain.steps)
    assert plain.bits_per_byte is None
    assert mixed.bits_per_byte is not None
    assert mixed.bits_per_byte_before is not None
    assert mixed.bits_per_byte < mixed.bits_per_byte_before
    from isoflop.alignment.replay import open_replay
    from isoflop.training.pretrain import held_out_scores

    replay = open_replay(tiny_shards.directory, recipe.model.path, 128, 0)
    with torch.no_grad():
        forgot = held_out_scores(load_decoder(tmp_path / "plain" / "model"), replay.held_out)
    assert mixed.bits_per_byte < forgot["bits_per_byte"] - 0.2
    conversations = open_conversations(
        replace(recipe, data=data), open_chat(load(recipe.model.path)), 128
    )
    rows = replay.mixed(conversations.train.batch(0, 2), 6, 2)
    text = replay.train.batch(6, 2)
    assert (rows.ids_BT[2:] == text.ids_BT).all()
    assert (rows.labels_BT[2:] == text.labels_BT).all()
    assert rows.n_labels == conversations.train.batch(0, 2).n_labels + text.n_labels


def test_text_of_another_tokenizer_is_refused(
    recipe: SftRecipe, marked_shards: Shards, tmp_path: Path
) -> None:
    other = replace(recipe, data=replace(recipe.data, replay=marked_shards.directory))
    with pytest.raises(ArtifactError, match="another tokenizer"):
        sft(other, tmp_path / "run")


# --- what cannot be learnt ------------------------------------------------------------------

ANSWER = {"completion": "f"}
ROWS = [
    {"prompt": "a", "completion": "b"},
    {"prompt": "x " * 200, "completion": "the end"},
    {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d " * 200}]},
    {"prompt": [{"role": "system", "content": "No."}, {"role": "user", "content": "e"}], **ANSWER},
    {"prompt": "g", "completion": "h"},
]  # fmt: skip
NO_SYSTEM = CHATML.replace(
    "{{ '<|im_start|>' + message['role']",
    "{% if message['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "{{ '<|im_start|>' + message['role']",
    1,
)


@pytest.fixture
def odd(recipe: SftRecipe, tmp_path: Path) -> SftRecipe:
    """A set of which some rows are too long or refused by the template."""
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    source = InstructSource("jsonl", path=tmp_path / "rows.jsonl")
    set_ = InstructRecipe((source,), held_out_fraction=0.0, drop_flawed=False)
    instruct(set_, tmp_path / "odd")
    return replace(recipe, data=replace(recipe.data, set=tmp_path / "odd"))


def test_conversations_that_cannot_be_learnt_are_named_by_file_and_line(
    odd: SftRecipe, base: Path, tmp_path: Path, calibrated: None
) -> None:
    chat = Chat(load(base), NO_SYSTEM)
    with pytest.raises(DataError) as raised:
        open_conversations(odd, chat, 64)
    file = tmp_path / "odd" / "supervised_train.jsonl"
    assert "2 conversations cannot be learnt from" in str(raised.value)
    assert f"{file}:2: nothing to learn" in str(raised.value)
    assert f"{file}:4: the chat template refuses this conversation: no system" in str(raised.value)
    skipping = replace(odd, data=replace(odd.data, unusable="skip"))
    data = open_conversations(skipping, chat, 64)
    assert data.conversations == 3
    assert [(row["line"], row["reason"]) for row in data.left_out] == [
        (2, "nothing to learn"), (3, "cut"),
        (4, "the chat template refuses this conversation: no system here"),
    ]  # fmt: skip
    none_cut = replace(odd, data=replace(odd.data, unusable="skip", too_long="skip"))
    assert open_conversations(none_cut, Chat(load(base)), 64).counted() == {
        "nothing to learn": 1, "too long": 1,
    }  # fmt: skip
    stopping = replace(odd, data=replace(odd.data, unusable="skip", too_long="stop"))
    with pytest.raises(DataError, match=r"1 conversations .*:3: too long"):
        open_conversations(stopping, Chat(load(base)), 64)


def test_a_run_lists_what_it_left_out(
    odd: SftRecipe, tmp_path: Path, calibrated: None, capsys: pytest.CaptureFixture[str]
) -> None:
    short = replace(odd.train, seq_len=64, epochs=1.0)
    skipping = replace(odd, data=replace(odd.data, unusable="skip"), train=short)
    result = sft(skipping, tmp_path / "run")
    assert result.left_out == 2
    assert "left out or cut: 1 cut, 1 nothing to learn" in capsys.readouterr().err
    rows = rows_of(tmp_path / "run" / LEFT_OUT)
    assert [row["line"] for row in rows] == [2, 3]


def test_windows_must_fit_the_model_and_the_batch(recipe: SftRecipe, tmp_path: Path) -> None:
    long = replace(recipe, train=replace(recipe.train, seq_len=256))
    with pytest.raises(RecipeError, match="exceeds the model's context of 128"):
        sft(long, tmp_path / "run")


def test_what_is_not_there_is_named_with_the_command_that_makes_it(
    recipe: SftRecipe, tmp_path: Path
) -> None:
    none = replace(recipe, data=replace(recipe.data, set=tmp_path / "none"))
    with pytest.raises(ArtifactError, match=r"none: no such directory\. `isoflop data instruct`"):
        sft(none, tmp_path / "run")
    none = replace(recipe, model=replace(recipe.model, path=tmp_path / "none"))
    with pytest.raises(ArtifactError, match=r"none: no such directory\. `isoflop train`"):
        sft(none, tmp_path / "run")


# --- parts ----------------------------------------------------------------------------------


def test_questions_are_taken_from_the_whole_set() -> None:
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 9) == [0, 1, 2]
    assert spread([], 9) == []


def test_noise_is_of_the_size_of_the_paper_and_a_function_of_the_batch_alone(
    recipe: SftRecipe, base: Path
) -> None:
    from isoflop.alignment.sft import _noise

    model = load_decoder(base)
    ids = torch.zeros(2, 128, dtype=torch.long)
    seen: list[torch.Tensor] = []
    for seed in (3, 3, 4):
        batch = SftBatch(ids, ids, None, 1, noise_seed=seed)
        with _noise(model, 5.0, batch), torch.no_grad():
            seen.append(model.embed_tokens(ids) - model.embed_tokens.weight[0])
    bound = 5.0 / (128 * 32) ** 0.5
    assert 0.99 * bound < seen[0].abs().max() <= bound + 1e-6
    assert abs(float(seen[0].mean())) < bound / 20
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert torch.equal(model.embed_tokens(ids[:1, :1])[0, 0], model.embed_tokens.weight[0])


def test_an_untrained_model_can_be_asked_and_calls_nothing(recipe: SftRecipe, base: Path) -> None:
    chat = open_chat(load(base))
    turn = answer(load_decoder(base), chat, chat.prompt_ids([{"role": "user", "content": "?"}]), 4)
    assert turn.calls == ()
