"""Items per CPU-second of four-way questions: Isoflop beside lm-evaluation-harness's `hf` backend.

Both ask the same exported model of about 10 million random weights the same questions in one
process, in turns; their answers are compared. Needs `isoflop[eval]`; says so where it is absent.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import rustbpe

from isoflop.core.errors import RecipeError
from isoflop.data.tokenizer import write_tokenizer
from isoflop.data.tokenizer_file import QWEN2_PATTERN, bpe_json
from isoflop.data.word_problems import word_problem
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import save_model
from isoflop.models.initialise import initialise

OURS, THEIRS = "isoflop", "lm-eval, hf"


def model_directory(folder: Path) -> Path:
    """A model of about 10 million weights with a tokenizer of 2,000 tokens."""
    trainer = rustbpe.Tokenizer()
    texts = (word_problem(0, i)[0] for i in range(4000))
    trainer.train_from_iterator(texts, vocab_size=1999, pattern=QWEN2_PATTERN)
    ids = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    write_tokenizer(folder / "tokenizer", bpe_json(ids, {"<|endoftext|>": len(ids)}), {}, [])
    config = DecoderConfig(
        vocab_size=len(ids) + 1, d_model=320, n_layers=7, n_heads=5, n_kv_heads=5, head_dim=64,
        d_ff=896, max_seq_len=512,
    )  # fmt: skip
    model = build_model(config)
    initialise(model, 0)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters")
    save_model(model, folder / "model", folder / "tokenizer")
    return folder / "model"


def questions(n: int, shots: int) -> list[tuple[str, list[str]]]:
    """Word problems after some worked ones, with four numbers to choose among."""
    found = []
    for i in range(n):
        draw = random.Random(i)
        shown = "".join(word_problem(1, draw.randrange(9000))[0] for _ in range(shots))
        asked, _, _ = word_problem(2, 2 * i)[0].partition("\nAnswer:")
        options = [f" The answer is {each}." for each in draw.sample(range(1, 60), 4)]
        found.append((f"{shown}{asked}\nAnswer:", options))
    return found


def main() -> None:
    """Print a line for each contestant and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 2, 5])
    parser.add_argument("--batch-size", type=int, default=32, help="the harness's")
    options = parser.parse_args()
    try:
        from lm_eval.models.huggingface import HFLM

        from isoflop.evaluation.harness import IsoflopLM
    except (ImportError, RecipeError) as error:
        print(f"skipped: {error}")
        return
    with tempfile.TemporaryDirectory() as folder:
        directory = model_directory(Path(folder))
        contestants = {
            OURS: IsoflopLM(directory),
            THEIRS: HFLM(
                pretrained=str(directory), device="cpu", dtype="float32",
                batch_size=options.batch_size,
            ),
        }  # fmt: skip
        for shots in options.shots:
            print(f"{shots} worked examples: {_turns(contestants, options, shots)}", flush=True)


def _turns(contestants: dict[str, Any], options: argparse.Namespace, shots: int) -> str:
    """Let both answer in turns; what came of it."""
    from lm_eval.api.instance import Instance

    requests = [
        Instance("loglikelihood", {}, (context, option), i)
        for i, (context, four) in enumerate(questions(options.items, shots))
        for option in four
    ]
    best: dict[str, float] = {}
    answers: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, model in contestants.items():
            began = time.process_time()
            found = model.loglikelihood(requests, disable_tqdm=True)
            seconds = time.process_time() - began
            best[name] = min(best.get(name, seconds), seconds)
            answers[name] = [logprob for logprob, _ in found]
    ours, theirs = answers.values()
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    chosen = [
        [max(range(4), key=each[4 * i : 4 * i + 4].__getitem__) for i in range(options.items)]
        for each in (ours, theirs)
    ]
    speeds = ", ".join(
        f"{name} {options.items / seconds:.1f} items per CPU-second"
        for name, seconds in best.items()
    )
    return (
        f"{speeds}; ratio {best[THEIRS] / best[OURS]:.2f}; largest difference of a "
        f"log-probability {apart:.1e}; same answers: {chosen[0] == chosen[1]}"
    )


if __name__ == "__main__":
    main()
