"""TRL's trainers on the model, data and settings of `alignment_speed.py`; not for what they learn.

Needs `trl` on the path (`pip install --target DIR --no-deps trl accelerate psutil`). Precision is
float32, gradient checkpointing off and nothing is saved or reported, so that a step is a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import transformers
from datasets import Dataset
from transformers import Qwen3Config
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

Step = Callable[[], None]


class Turns(transformers.TrainerCallback):
    """Measures the trainer's steps, and between them one step of each other contestant."""

    def __init__(self, others: Mapping[str, Step]) -> None:
        self._others = others
        self.best: dict[str, float] = {}
        self._seen = self._began = 0.0

    def on_step_begin(self, *given: Any, **named: Any) -> None:
        """The trainer's step begins."""
        self._began = time.process_time()

    def on_step_end(self, *given: Any, **named: Any) -> None:
        """It ends; the first is warm-up."""
        spent = {"TRL": time.process_time() - self._began}
        for name, step in self._others.items():
            began = time.process_time()
            step()
            spent[name] = time.process_time() - began
        if self._seen:
            for name, seconds in spent.items():
                self.best[name] = min(seconds, self.best.get(name, float("inf")))
        self._seen += 1


def words(vocab: int) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer whose token i is the word `t<i>`; the last is padding, the one before the end."""
    names = {f"t{i}": i for i in range(vocab)}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(names, unk_token="t0"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token=f"t{vocab - 1}", eos_token=f"t{vocab - 2}"
    )


def text(draw: np.random.Generator, length: int, vocab: int) -> str:
    """Random words; neither padding nor an end."""
    return " ".join(f"t{i}" for i in draw.integers(0, vocab - 2, length))


def in_turns(
    stage: str, config: Qwen3Config, rows: int, others: Mapping[str, Step], rounds: int, out: Path
) -> dict[str, float]:
    """CPU-seconds of TRL's fastest step and of the others', in turns.

    Args:
        rows: Rows of a step, as long as the context; of preferences half as many pairs.
        out: A folder that may be written to.

    Raises:
        KeyError: TRL has no such stage.
    """
    turns = Turns(others)
    trainer = MAKERS[stage](config, rows, rounds + 1, out)
    trainer.add_callback(turns)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return turns.best


def _common(rows: int, steps: int, out: Path) -> dict[str, Any]:
    return {
        "output_dir": str(out), "per_device_train_batch_size": rows, "max_steps": steps,
        "learning_rate": 1e-4, "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "save_strategy": "no", "report_to": [], "logging_steps": 10_000, "disable_tqdm": True,
        "dataloader_num_workers": 0,
    }  # fmt: skip


def _sft(per_row: int) -> Callable[[Qwen3Config, int, int, Path], Any]:
    def make(config: Qwen3Config, rows: int, steps: int, out: Path) -> Any:
        draw, width = np.random.default_rng(0), config.max_position_embeddings // per_row
        first, rest = width // 3, width - width // 3 - 1  # it adds an end
        data = [
            {
                "prompt": text(draw, first, config.vocab_size),
                "completion": " " + text(draw, rest, config.vocab_size),
            }
            for _ in range(rows * per_row * (steps + 1))
        ]
        settings = SFTConfig(
            **_common(rows, steps, out),
            max_length=config.max_position_embeddings,
            packing=per_row > 1,
        )
        model = transformers.Qwen3ForCausalLM(deepcopy(config))
        return SFTTrainer(model, settings, train_dataset=Dataset.from_list(data),
                          processing_class=words(config.vocab_size))  # fmt: skip

    return make


def _pairs(config: Qwen3Config, count: int) -> Dataset:
    draw, first = np.random.default_rng(0), config.max_position_embeddings // 3
    rest = config.max_position_embeddings - first - 1
    return Dataset.from_list(
        [
            {
                "prompt": text(draw, first, config.vocab_size),
                "chosen": " " + text(draw, rest, config.vocab_size),
                "rejected": " " + text(draw, rest, config.vocab_size),
            }
            for _ in range(count)
        ]
    )


def _reward(config: Qwen3Config, rows: int, steps: int, out: Path) -> Any:
    named = deepcopy(config)
    named.num_labels, named.pad_token_id = 1, config.vocab_size - 1
    settings = RewardConfig(
        **_common(rows // 2, steps, out), max_length=config.max_position_embeddings
    )
    return RewardTrainer(
        transformers.Qwen3ForSequenceClassification(named), settings,
        train_dataset=_pairs(config, rows // 2 * (steps + 1)),
        processing_class=words(config.vocab_size),
    )  # fmt: skip


def _dpo(precomputed: bool) -> Callable[[Qwen3Config, int, int, Path], Any]:
    def make(config: Qwen3Config, rows: int, steps: int, out: Path) -> Any:
        settings = DPOConfig(
            **_common(rows // 2, steps, out), max_length=config.max_position_embeddings,
            precompute_ref_log_probs=precomputed,
        )  # fmt: skip
        return DPOTrainer(
            transformers.Qwen3ForCausalLM(deepcopy(config)), args=settings,
            ref_model=None if precomputed else transformers.Qwen3ForCausalLM(deepcopy(config)),
            train_dataset=_pairs(config, rows // 2 * (steps + 1)),
            processing_class=words(config.vocab_size),
        )  # fmt: skip

    return make


def _grpo(config: Qwen3Config, rows: int, steps: int, out: Path) -> Any:
    draw = np.random.default_rng(0)
    settings = GRPOConfig(
        **_common(rows, steps, out), num_generations=8, max_completion_length=64, beta=0.0
    )
    asked = [{"prompt": text(draw, 16, config.vocab_size)} for _ in range(64)]

    def worth(completions: list[str], **named: Any) -> list[float]:
        return [float(said.split()[0] < said.split()[-1]) for said in completions]

    return GRPOTrainer(
        transformers.Qwen3ForCausalLM(deepcopy(config)), worth, settings,
        train_dataset=Dataset.from_list(asked), processing_class=words(config.vocab_size),
    )  # fmt: skip


MAKERS: dict[str, Callable[[Qwen3Config, int, int, Path], Any]] = {
    "sft": _sft(1),
    "packed": _sft(4),
    "reward": _reward,
    "dpo": _dpo(precomputed=True),
    "dpo, reference each step": _dpo(precomputed=False),
    "grpo": _grpo,
}
"""Stage → its trainer: (shape, rows of a step, steps, folder) → trainer."""
