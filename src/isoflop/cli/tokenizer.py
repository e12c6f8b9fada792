"""`isoflop tokenizer train`, `study` and `extend`; not for the work itself (`isoflop.data`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from isoflop.cli.arguments import Arguments, OutPath, dispatch, parse_arguments
from isoflop.cli.plan_first import PlanFirst, begins
from isoflop.core.console import make_progress, print_result
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.data.tokenizer import Tokenizer
    from isoflop.data.tokenizer_study import Compression, VocabularyStudy


@dataclass(frozen=True, kw_only=True)
class TrainArguments(Arguments):
    """Train a tokenizer on the training split of a corpus."""

    corpus: Positional[Path]
    """A corpus directory, as `isoflop data build` writes it."""
    vocab_size: int
    """All ids: 256 bytes, the merges or pieces, and the special tokens (3 and those of
    --reserve)."""
    out: OutPath
    """The directory to write: `tokenizer.json` as Hugging Face libraries read it."""
    model: Literal["bpe", "unigram"] = "bpe"
    """Byte-level BPE, or a byte-level unigram model (slower to train and to encode with)."""
    reserve: tuple[str, ...] = ()
    """Further special tokens, beside the end of text and the marks of a chat turn."""
    plan: PlanFirst = False


@dataclass(frozen=True, kw_only=True)
class StudyArguments(Arguments):
    """Measure what several sizes of vocabulary save and cost, from one training at the largest."""

    corpus: Positional[Path]
    """A corpus directory, as `isoflop data build` writes it."""
    vocab_sizes: str = "1024,2048,4096,8192,16384"
    """Sizes of vocabulary, with commas between them."""
    d_model: int = 128
    """Width of the model that is to use it."""
    n_layers: int = 4
    """Number of its blocks."""


@dataclass(frozen=True, kw_only=True)
class ExtendArguments(Arguments):
    """Add tokens to a vocabulary from new text; every old id keeps its meaning."""

    tokenizer: Positional[Path]
    """The tokenizer directory to extend."""
    corpus: Positional[Path]
    """The corpus that the new tokens are learned from."""
    add: Annotated[int, arg(metavar="N")]
    """How many tokens to add."""
    out: OutPath
    """The directory to write."""


def run(args: list[str]) -> int:
    """Run the command; 0 unless the input is bad."""
    choices = {
        "train": (_train, "train a tokenizer on a corpus"),
        "study": (_study, "what several sizes of vocabulary save and cost"),
        "extend": (_extend, "add tokens from new text, old ids unchanged"),
    }
    return dispatch("tokenizer", choices, args)


def _train(args: list[str]) -> int:
    arguments = parse_arguments(TrainArguments, args, "tokenizer train")
    from isoflop.data.corpus import inspect
    from isoflop.data.foresee import foresee_tokenizer
    from isoflop.data.tokenizer import train
    from isoflop.data.tokenizer_study import compression

    corpus = inspect(arguments.corpus)
    foretell = partial(foresee_tokenizer, corpus, arguments.model)
    if not begins(arguments, arguments.plan, arguments.out, foretell):
        return 0
    tokenizer = train(
        corpus,
        arguments.vocab_size,
        arguments.out,
        make_progress(arguments.json),
        model=arguments.model,
        reserve=arguments.reserve,
    )
    measured = compression(tokenizer, corpus)
    columns = [("bytes per token, held-out", measured)]
    text = f"{tokenizer.vocab_size:,} tokens in {tokenizer.directory}\n{_by_language(columns)}"
    print_result({**_described(tokenizer), **_measured(measured)}, text, arguments.json)
    return 0


def _extend(args: list[str]) -> int:
    arguments = parse_arguments(ExtendArguments, args, "tokenizer extend")
    from isoflop.data.corpus import inspect
    from isoflop.data.tokenizer import load
    from isoflop.data.tokenizer_extend import extend
    from isoflop.data.tokenizer_study import compression

    corpus, base = inspect(arguments.corpus), load(arguments.tokenizer)
    before = compression(base, corpus)
    progress = make_progress(arguments.json)
    tokenizer = extend(arguments.tokenizer, corpus, arguments.add, arguments.out, progress)
    after = compression(tokenizer, corpus)
    document = {
        **_described(tokenizer),
        **_measured(after),
        "before": {"vocab_size": base.vocab_size, **_measured(before)},
    }
    columns = [("bytes per token, held-out: before", before), ("after", after)]
    text = (
        f"{base.vocab_size:,} + {arguments.add:,} tokens in {tokenizer.directory}\n"
        f"{_by_language(columns)}"
    )
    print_result(document, text, arguments.json)
    return 0


def _study(args: list[str]) -> int:
    arguments = parse_arguments(StudyArguments, args, "tokenizer study")
    from isoflop.data.corpus import inspect
    from isoflop.data.tokenizer_study import study
    from isoflop.models.accounting import count_parameters
    from isoflop.models.recipe import ModelConfig

    sizes = _numbers(arguments.vocab_sizes)
    shape = ModelConfig(d_model=arguments.d_model, n_layers=arguments.n_layers)
    count = count_parameters(shape.decoder_config(max(sizes), 1))
    found = study(
        inspect(arguments.corpus),
        sizes,
        arguments.d_model,
        count.params_total - count.output,
        make_progress(arguments.json),
    )
    print_result(_study_document(found), _study_text(found), arguments.json)
    return 0


def _numbers(text: str) -> list[int]:
    try:
        return [int(part.strip().replace("_", "")) for part in text.split(",")]
    except ValueError:
        raise RecipeError(
            f"`{text}` is not a list of whole numbers",
            where="--vocab-sizes",
            fix="Write them with commas: 1024,4096,16384",
        ) from None


# --- words ---------------------------------------------------------------------------------


def _described(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "tokenizer": tokenizer.directory,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "special_ids": tokenizer.special_ids,
    }


def _measured(parts: Sequence[Compression]) -> dict[str, dict[str, float]]:
    return {"bytes_per_token": {part.language: part.bytes_per_token for part in parts}}


def _by_language(columns: Sequence[tuple[str, Sequence[Compression]]]) -> str:
    """One row a language, one column a tokenizer."""
    rows = [["", *(title for title, _ in columns)]]
    for place, part in enumerate(columns[0][1]):
        rows.append(
            [part.language, *(f"{parts[place].bytes_per_token:.2f}" for _, parts in columns)]
        )
    return _table(rows)


def _study_document(found: VocabularyStudy) -> dict[str, Any]:
    return {
        "d_model": found.d_model,
        "body_params": found.body_params,
        "best_vocab_size": found.best.vocab_size,
        "sizes": [
            {
                **{key: value for key, value in asdict(size).items() if key != "compression"},
                **_measured(size.compression),
            }
            for size in found.sizes
        ],
    }


def _study_text(found: VocabularyStudy) -> str:
    languages = [part.language for part in found.sizes[0].compression]
    rows = [
        [
            "vocabulary",
            *languages,
            "fewer tokens",
            "embedding",
            "of model",
            "FLOPs per token",
            "per byte",
        ]
    ]
    before = None
    for size in found.sizes:
        density = size.compression[0].bytes_per_token
        saved = "" if before is None else f"{1 - before / density:.1%}"
        rows.append(
            [
                f"{size.vocab_size:,}",
                *(f"{part.bytes_per_token:.2f}" for part in size.compression),
                saved,
                f"{size.embedding_params:,}",
                f"{size.embedding_share:.0%}",
                f"{size.flops_per_token:.3g}",
                f"{size.flops_per_byte:.3g}",
            ]
        )
        before = density
    best = found.best
    if best is found.sizes[-1] and len(found.sizes) > 1:
        verdict = "a byte of text is still getting cheaper at the largest size"
    elif best is found.sizes[0]:
        verdict = "more than the smallest size costs more FLOPs per byte than it saves"
    else:
        verdict = (
            f"beyond {best.vocab_size:,} the output layer costs more FLOPs than the tokens it saves"
        )
    return (
        f"{_table(rows)}\n\nBytes of held-out text per token, and training FLOPs of a model of "
        f"width {found.d_model} with {found.body_params:,} parameters beside its vocabulary.\n"
        f"Fewest FLOPs per byte at {best.vocab_size:,}: {verdict}."
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
