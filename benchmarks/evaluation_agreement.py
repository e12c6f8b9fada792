"""One model scored three ways on four files, offline: `isoflop eval`, lm-evaluation-harness's `hf`
backend on the exported directory, and the harness over HTTP on `isoflop serve`.

Prints each way's score, the bits per byte of all that was asked about, and how far they are apart;
exits with 1 where bits per byte differ by more than 1e-6 or a score differs. Needs `isoflop[eval]`
and `isoflop[serve]`. Texts are shorter than the model's window: over HTTP the harness keeps one
token of it for the reply, and would cut longer ones elsewhere.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEAST_APART = 1e-6
"""Bits per byte."""
WAYS = ("isoflop eval", "lm-eval, hf", "lm-eval, HTTP")
OURS = {
    "agree_texts": "bits_per_byte", "agree_pairs": "minimal_pairs",
    "agree_questions": "multiple_choice", "agree_words": "cloze",
}  # fmt: skip
"""File → our task."""
COMMON = {"dataset_path": "json", "test_split": "test", "num_fewshot": 0, "target_delimiter": ""}
THEIRS: dict[str, dict[str, Any]] = {
    "agree_texts": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "agree_pairs": {
        "output_type": "multiple_choice", "doc_to_text": "", "doc_to_target": 0,
        "doc_to_choice": "{{[sentence_good, sentence_bad]}}", "metric_list": [{"metric": "acc"}],
    },
    "agree_questions": {
        "output_type": "multiple_choice", "doc_to_target": "{{answer}}",
        "doc_to_text": "{{question}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\n"
        "D. {{choices[3]}}\nAnswer:",
        "doc_to_choice": [" A", " B", " C", " D"], "metric_list": [{"metric": "acc"}],
    },
    "agree_words": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' ' + text.split(' ')[-1]}}", "metric_list": [{"metric": "acc"}],
    },
}  # fmt: skip
"""File → the harness's task of the same items."""


@dataclass(frozen=True)
class Scored:
    """What one way makes of one file."""

    score: float
    logprobs: tuple[float, ...]
    """Of everything asked about, in order."""


def write_files(folder: Path, items: int) -> dict[str, int]:
    """Four files of that many items; the bytes asked about in each."""
    from isoflop.data.word_problems import word_problem
    from isoflop.evaluation.tasks.minimal_pairs import KINDS

    english = [t for t, language in (word_problem(3, i) for i in range(4 * items))
               if language == "en"][:items]  # fmt: skip
    kinds = [make for kind in KINDS.values() for _, make in kind]
    draw = random.Random(0)
    pairs = [kinds[i % len(kinds)](draw) for i in range(items)]
    texts = [word_problem(4, i)[0] for i in range(items)]
    questions = [
        {"question": text.split("\nAnswer:")[0], "answer": draw.randrange(4),
         "choices": [str(n) for n in draw.sample(range(60), 4)]}
        for text in english
    ]  # fmt: skip
    words = [text.strip() for text in english]
    rows: dict[str, list[Mapping[str, Any]]] = {
        "agree_texts": [{"text": text} for text in texts],
        "agree_pairs": [{"sentence_good": good, "sentence_bad": bad} for good, bad in pairs],
        "agree_questions": list(questions),
        "agree_words": [{"text": text} for text in words],
    }
    for name, each in rows.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in each]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {
        "agree_texts": sum(len(text.encode()) for text in texts),
        "agree_pairs": sum(len(s.encode()) for pair in pairs for s in pair),
        "agree_questions": 8 * len(questions),
        "agree_words": sum(1 + len(text.rpartition(" ")[2].encode()) for text in words),
    }


def by_isoflop(model: Path, folder: Path) -> dict[str, Scored]:
    """What `isoflop eval` says."""
    out = folder / "scores"
    tasks = ",".join(f"{task}={folder / name}.jsonl" for name, task in OURS.items())
    command = [sys.executable, "-m", "isoflop", "eval", str(model), "--tasks", tasks,
               "-o", str(out), "--json"]  # fmt: skip
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    scores = json.loads(said.stdout)["tasks"]
    logprobs: dict[str, list[float]] = {}
    for line in (out / "items.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        detail = row["detail"]
        found = detail["logprobs"] if "logprobs" in detail else [detail["logprob"]]
        logprobs.setdefault(row["task"], []).extend(found)
    return {
        name: Scored(scores[f"{task}:{name}"]["score"], tuple(logprobs[f"{task}:{name}"]))
        for name, task in OURS.items()
    }


def by_harness(model: str, arguments: Mapping[str, Any], folder: Path) -> dict[str, Scored]:
    """What lm-evaluation-harness says of the same files."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    for name, task in THEIRS.items():
        data = {"dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}}
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **COMMON, **data, **task}))
    found = lm_eval.simple_evaluate(
        model=model, model_args=dict(arguments), tasks=list(THEIRS), bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    )  # fmt: skip
    scored = {}
    for name, task in THEIRS.items():
        metric = task["metric_list"][0]["metric"]
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        logprobs = [_first(one) for sample in samples for (one,) in sample["resps"]]
        scored[name] = Scored(found["results"][name][f"{metric},none"], tuple(logprobs))
    return scored


def _first(answer: object) -> float:
    return float(answer[0] if isinstance(answer, Sequence) else answer)  # type: ignore[arg-type]


@contextmanager
def served(model: Path) -> Iterator[tuple[str, str]]:
    """`isoflop serve` on a free port: (its address, the model's name there)."""
    command = [sys.executable, "-m", "isoflop", "serve", str(model), "--port", "0", "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        if process.stdout is None:
            raise RuntimeError("the server has no output")
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("}"):
                break
        document = json.loads(said)
        yield document["address"], document["model"]
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    """Print the table; 1 where the ways disagree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a model directory, e.g. demo/model")
    parser.add_argument("--items", type=int, default=100, help="of each file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.disable(logging.WARNING)
    from isoflop.core.artifact import read_json
    from isoflop.models.convert import export_model

    window = read_json(options.model / "config.json")["max_position_embeddings"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HF_HOME"] = str(folder / "cache")
        n_bytes = write_files(folder, options.items)
        export_model(options.model, folder / "exported")
        exported = str(folder / "exported")
        found = [by_isoflop(options.model, folder)]
        found.append(by_harness(
            "hf", {"pretrained": exported, "device": "cpu", "dtype": "float32", "batch_size": 8},
            folder,
        ))  # fmt: skip
        with served(options.model) as (address, served_as):
            found.append(by_harness(
                "local-completions",
                {"model": served_as, "base_url": f"{address}/v1/completions", "batch_size": 8,
                 "tokenizer": exported, "tokenizer_backend": "huggingface", "max_length": window},
                folder,
            ))  # fmt: skip
    rows = [_row(name, n_bytes[name], [each[name] for each in found]) for name in OURS]
    agree = all(row["agree"] for row in rows)
    if options.json:
        print(json.dumps({"rows": rows, "agree": agree}, indent=2))
    else:
        _show(rows)
    return 0 if agree else 1


def _row(name: str, n_bytes: int, found: Sequence[Scored]) -> dict[str, Any]:
    bits = [-math.fsum(each.logprobs) / math.log(2) / n_bytes for each in found]
    scores = [each.score for each in found]
    close = LEAST_APART if name == "agree_texts" else 0.0  # a share of right answers is exact
    return {
        "file": name, "task": OURS[name], "asked": len(found[0].logprobs), "scores": scores,
        "bits_per_byte": bits,
        "bits_per_byte_apart": max(bits) - min(bits),
        "logprob_apart": max(
            max(each) - min(each) for each in zip(*(f.logprobs for f in found), strict=True)
        ),
        "agree": max(bits) - min(bits) <= LEAST_APART and max(scores) - min(scores) <= close,
    }  # fmt: skip


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    print(f"{'task':<16}{'asked':>6}  " + "".join(f"{way:>15}" for way in WAYS)
          + f"{'bits per byte':>15}{'apart':>9}{'largest Δ ln p':>16}")  # fmt: skip
    for row in rows:
        scores = "".join(f"{score:>15.6f}" for score in row["scores"])
        print(f"{row['task']:<16}{row['asked']:>6}  {scores}{row['bits_per_byte'][0]:>15.6f}"
              f"{row['bits_per_byte_apart']:>9.1e}{row['logprob_apart']:>16.1e}"
              f"{'' if row['agree'] else '  DISAGREE'}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
