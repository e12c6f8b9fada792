"""The commands that make, continue and use what lies on disk, as one would type them.

Not for running them. Paths are quoted for a POSIX shell.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.core.artifact import read_json
from isoflop.reporting.inventory.identify import Thing, identify

AGAIN = "again.toml"
_FROM_RECIPE = (
    "train", "sft", "reward", "dpo", "ppo", "grpo", "iterate", "ladder", "mixture", "data build",
)  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A command line and what it is for."""

    line: str
    why: str


def made_by(thing: Thing, out: Path | None = None) -> tuple[Command, ...]:
    """The commands that make this thing again, in order; empty where that cannot be told.

    Args:
        out: Where to; beside the original by default, whose place is taken.
    """
    beside = thing.path.with_name(f"{thing.path.stem}-again{thing.path.suffix}")
    again = shlex.quote(str(out or beside))
    if thing.kind == "model" and thing.path.name == "model" and _in_a_run(thing):
        return made_by(identify(thing.path.parent), out)
    if thing.recipe is not None and thing.stage in _FROM_RECIPE:
        return _by_recipe(thing, again)
    inputs = [shlex.quote(each["path"]) for each in thing.manifest.inputs] if thing.manifest else []
    write = _MAKERS.get(thing.kind)
    line = write(thing, inputs, again) if write is not None else ""
    return (Command(line, _CAVEATS.get(thing.kind, "makes it again")),) if line else ()


def continued_by(thing: Thing) -> tuple[Command, ...]:
    """The commands that go on with unfinished work; empty where it is finished or unknown."""
    if thing.status not in ("unfinished", "stopped early"):
        return ()
    here = shlex.quote(str(thing.path))
    if thing.kind == "demo":
        return (Command(f"isoflop demo --out {here}{_demo_flags(thing)}", "goes on"),)
    if thing.recipe is not None and thing.stage in _FROM_RECIPE:
        return _by_recipe(thing, here, why="goes on where it stopped")
    return ()


def next_for(thing: Thing) -> tuple[Command, ...]:
    """What can be done with this thing."""
    if thing.status in ("unfinished", "stopped early"):
        return continued_by(thing)
    here = shlex.quote(str(thing.path))
    if thing.kind in ("run", "demo") and (thing.path / "model").is_dir():
        model = shlex.quote(str(thing.path / "model"))
        watch = (Command(f"isoflop report {here} -o report.html", "the whole of it on one page"),)
        return (*watch, *_filled(_NEXT["model"], model))
    if thing.kind == "recipe":
        return _for_recipe(thing, here)
    return _filled(_NEXT.get(thing.kind, ()), here)


def _filled(rows: tuple[tuple[str, str], ...], here: str) -> tuple[Command, ...]:
    return tuple(Command(line.format(here=here), why) for line, why in rows)


def _in_a_run(thing: Thing) -> bool:
    return (thing.path.parent / "config.json").is_file()


def _by_recipe(thing: Thing, out: str, why: str = "makes it again") -> tuple[Command, ...]:
    where = shlex.quote(str(thing.path))
    note = _CAVEATS.get(thing.kind, why) if why.startswith("makes") else why
    return (
        Command(f"isoflop show {where} --recipe > {AGAIN}", "its recipe, as it was resolved"),
        Command(f"isoflop {thing.stage} {AGAIN} -o {out}", note),
    )


def _for_recipe(thing: Thing, here: str) -> tuple[Command, ...]:
    if not thing.stage:
        stages = "sft, reward, dpo, grpo or ppo"
        return (Command(f"isoflop sft {here} -o run --plan", f"or {stages}: it could be for any"),)
    out = thing.stage.split()[-1]
    return (
        Command(f"isoflop {thing.stage} {here} -o {out} --plan", "what it will take"),
        Command(f"isoflop {thing.stage} {here} -o {out}", "does it"),
    )


def _demo_flags(thing: Thing) -> str:
    return "".join(
        f" --{key} {thing.facts[key]}" for key in ("minutes", "seed") if key in thing.facts
    )


# --- how each kind is made -----------------------------------------------------------------


def _tokenizer(thing: Thing, inputs: list[str], out: str) -> str:
    size, model = thing.facts.get("vocabulary"), thing.facts.get("model")
    if len(inputs) == 2:
        return f"isoflop tokenizer extend {inputs[0]} {inputs[1]} --add N -o {out}"
    if len(inputs) != 1:
        return ""
    kind = " --model unigram" if model == "unigram" else ""
    return f"isoflop tokenizer train {inputs[0]} --vocab-size {size}{kind} -o {out}"


def _shards(thing: Thing, inputs: list[str], out: str) -> str:
    if len(inputs) != 2:
        return ""
    return f"isoflop tokenize {inputs[0]} --tokenizer {inputs[1]} -o {out}"


def _evaluation(thing: Thing, inputs: list[str], out: str) -> str:
    if not inputs:
        return ""
    tasks = shlex.quote(",".join(thing.facts))
    seed = thing.manifest.seed if thing.manifest else None
    seeded = f" --seed {seed}" if seed else ""
    return f"isoflop eval {inputs[0]} --tasks {tasks}{seeded} -o {out}"


def _compressed(thing: Thing, inputs: list[str], out: str) -> str:
    result = thing.path / "result.json"
    if not result.is_file():
        return f"isoflop import {inputs[0]} -o {out}" if _imported(thing, inputs) else ""
    config: Mapping[str, Any] = read_json(result).get("config", {})
    flags = "".join(
        f" --{key} {shlex.quote(str(value))}" for key, value in config.items() if value is not None
    )
    return f"isoflop compress {inputs[0]} --data {inputs[1]}{flags} -o {out}" if inputs[1:] else ""


def _imported(thing: Thing, inputs: list[str]) -> bool:
    if len(inputs) != 1:
        return False
    source = Path(shlex.split(inputs[0])[0])
    return source.is_dir() and identify(source).kind == "hugging-face-model"


def _law(thing: Thing, inputs: list[str], out: str) -> str:
    sources = [str(each["path"]) for each in read_json(thing.path).get("source", ())]
    if not sources:
        return ""
    named = " ".join(map(shlex.quote, sources))
    return f"isoflop laws fit {named} --form {thing.facts['form']} -o {out}"


def _instruct(thing: Thing, inputs: list[str], out: str) -> str:
    return f"isoflop data instruct RECIPE.toml -o {out}"


_MAKERS: dict[str, Callable[[Thing, list[str], str], str]] = {
    "tokenizer": _tokenizer,
    "shards": _shards,
    "evaluation": _evaluation,
    "model": _compressed,
    "law": _law,
    "instruct": _instruct,
    "demo": lambda thing, inputs, out: f"isoflop demo --out {out}{_demo_flags(thing)}",
    "annotations": lambda thing, inputs, out: f"isoflop data annotate RECIPE.toml -o {out}",
}
_CAVEATS = {
    "corpus": "makes it again, once the sources' paths are filled in: only their names were kept",
    "instruct": "makes it again; its recipe was not kept, only its hash in manifest.json",
    "annotations": "makes it again; its recipe was not kept, only its hash in manifest.json",
    "law": "makes it again, with the options that `laws fit` was given",
}
"""What the command line alone does not say."""

_NEXT: dict[str, tuple[tuple[str, str], ...]] = {
    "corpus": (
        ("isoflop data inspect {here}", "what it holds and what was dropped"),
        ("isoflop data card {here}", "the same as a page"),
        ("isoflop tokenizer train {here} --vocab-size 4096 -o tokenizer", "a tokenizer for it"),
        ("isoflop tokenize {here} --tokenizer tokenizer -o shards", "tokens to train on"),
    ),
    "tokenizer": (
        ("isoflop tokenize CORPUS --tokenizer {here} -o shards", "tokens to train on"),
        ("isoflop tokenizer extend {here} CORPUS --add 1000 -o larger", "more tokens"),
    ),
    "shards": (
        ("isoflop train RECIPE.toml -o run --data.shards {here}", "one model"),
        ("isoflop ladder RECIPE.toml -o ladder --data.shards {here}", "many small ones, for a law"),
    ),
    "ladder": (
        ("isoflop laws fit {here} --form auto -o law.json", "a law through its runs"),
        ("isoflop report {here} -o report.html", "its runs on one page"),
    ),
    "mixture-search": (
        ("isoflop laws predict {here}/law.json --weights NAME=0.5,…", "another mixture's losses"),
        ("isoflop ledger {here}", "what was promised of it"),
    ),
    "law": (
        ("isoflop laws predict {here} --params 1e8 --tokens 2e9", "the loss of a run"),
        ("isoflop laws optimal {here} --flops 1e19", "the best size for a budget"),
        ("isoflop plan --law {here} --flops 1e19", "the whole plan of a run"),
        ("isoflop report {here} -o report.html", "the law on one page"),
    ),
    "run table": (
        ("isoflop laws fit {here} --form auto -o law.json", "a law through its runs"),
        ("isoflop laws backtest {here}", "whether the small runs foretell the large ones"),
    ),
    "ledger": (("isoflop ledger {here}", "every promise, its outcome, and the chain checked"),),
    "model": (
        ("isoflop chat {here}", "talk to it"),
        ("isoflop eval {here} --tasks cloze,induction -o scores", "what it can do"),
        ("isoflop serve {here}", "behind OpenAI's API, with a page"),
        ("isoflop compress {here} --data SHARDS --method int8 -o smaller", "fewer bytes"),
        ("isoflop export {here} --to gguf -o model.gguf", "for llama.cpp"),
    ),
    "hugging-face-model": (("isoflop import {here} -o model", "a model to train further"),),
    "reward-model": (
        ("isoflop grpo RECIPE.toml -o run", 'learn by it: `[[rewards]]` kind = "model", path'),
    ),
    "evaluation": (
        ("isoflop report {here} -o report.html", "the scores on one page"),
        ("isoflop eval OTHER_MODEL --tasks … -o other --compare {here}", "paired by item"),
    ),
    "instruct": (
        ("isoflop sft RECIPE.toml -o run --data.set {here}", "fine-tune on it"),
        ("isoflop dpo RECIPE.toml -o run --data.set {here}", "on its preference pairs"),
        ("isoflop grpo RECIPE.toml -o run --data.set {here}", "on its verifiable rows"),
    ),
    "annotations": (("isoflop data build RECIPE.toml --annotations {here} -o corpus", "decide"),),
    "gguf": (("llama-cli -m {here}", "llama.cpp opens it"),),
    "documents": (("isoflop data build RECIPE.toml -o corpus", 'a source of kind = "jsonl"'),),
    "parquet": (("isoflop data build RECIPE.toml -o corpus", 'a source of kind = "parquet"'),),
    "text": (("isoflop data build RECIPE.toml -o corpus", 'a source of kind = "text"'),),
    "folder": (("isoflop report {here} -o report.html", "what it holds on one page"),),
    "preference rows": (("isoflop data instruct RECIPE.toml -o set", "as a set to train on"),),
    "instruction rows": (("isoflop data instruct RECIPE.toml -o set", "as a set to train on"),),
    "verifiable rows": (("isoflop data instruct RECIPE.toml -o set", "as a set to train on"),),
}
