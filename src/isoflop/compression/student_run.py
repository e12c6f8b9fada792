"""A compression that trains, from promise to result, in a run's directory that can be continued.

Not for the student or its training (`student.py`), nor for methods that train nothing
(`compress.py`).
"""

from __future__ import annotations

import shutil
import statistics
from dataclasses import asdict
from pathlib import Path

from isoflop.compression.measure import generation_speeds, measure
from isoflop.compression.recipe import CompressConfig
from isoflop.compression.result import (
    BURSTS,
    RESULT,
    Compressed,
    facts,
    promise,
    read_result,
    said,
    settle,
)
from isoflop.compression.student import (
    HEALS,
    LEARNS,
    PILOTS,
    Outlook,
    foretell_student,
    make_student,
    train_student,
)
from isoflop.compression.texts import Texts
from isoflop.core.artifact import (
    MANIFEST,
    build_directory,
    read_json,
    write_atomic,
    write_json,
    write_manifest,
)
from isoflop.core.console import Progress
from isoflop.core.hardware import machine
from isoflop.core.ledger import LEDGER, Ledger
from isoflop.core.lock import locked
from isoflop.core.recipe import to_dict
from isoflop.models.card import CARD, model_card
from isoflop.models.convert import write_variant
from isoflop.models.decoder import Decoder
from isoflop.models.stored_weights import WEIGHTS
from isoflop.training.run_directory import claim_for, seal_for

PILOT_RUNS, MODEL = "pilots", "model"
FORETOLD = "foretold.json"


def compress_by_training(
    model: Path,
    data: Path,
    teacher: Decoder,
    texts: Texts,
    out: Path,
    config: CompressConfig,
    progress: Progress,
) -> Compressed:
    """Make a student and train it in the directory `out`, or go on where that stopped.

    Raises:
        RunError: The directory belongs to something else, or training diverged or was interrupted.
        RecipeError: The shape asked for cannot be.
    """
    start = make_student(teacher, config, texts)
    resolved = to_dict(config)
    with locked(out):
        claim_for(out, resolved, [model, data], "the model or the text is another", "compression")
        if (out / RESULT).exists():
            result = read_result(out)
        else:
            result = _work(model, data, teacher, start, texts, out, config, progress)
        if not (out / MANIFEST).exists():  # a kill may have come between the two
            shutil.rmtree(out / PILOT_RUNS, ignore_errors=True)
            seal_for(out, resolved, [model, data], config.student.seed)
    return result


def _work(
    model: Path,
    data: Path,
    teacher: Decoder,
    start: Decoder,
    texts: Texts,
    out: Path,
    config: CompressConfig,
    progress: Progress,
) -> Compressed:
    student = config.student
    ledger = Ledger(out / LEDGER)
    speeds_full = generation_speeds(teacher, texts.held_out, BURSTS)
    begun = out / FORETOLD
    if begun.exists():
        outlook = Outlook.from_json(read_json(begun))
    else:
        share = sum(1 / part for part in PILOTS)
        progress.note(f"foretelling from {len(PILOTS)} pilots, {share:.0%} of the training")
        progress.start("pilots", round(share * student.tokens), "tokens")
        outlook = foretell_student(
            teacher, start, student, texts, out / PILOT_RUNS, progress,
            HEALS if config.method == "drop" else LEARNS,
        )  # fmt: skip
        progress.finish()
        write_json(begun, asdict(outlook))
    parameters = list(start.parameters())
    ids = promise(
        ledger,
        outlook,
        f"{len(PILOTS)} pilot runs of {config.method}, up to {outlook.tokens[-1]:,} tokens",
        sum(4 * p.numel() for p in parameters),
        len(parameters),
        generation_speeds(start, texts.held_out, BURSTS),
    )
    progress.note(f"promised: {said(outlook)}; training")
    progress.start(f"train {out.name}", student.tokens, "tokens")
    small = train_student(teacher, start, student, texts, student.steps, out, progress)
    measured = measure(teacher, small, texts.held_out)
    progress.finish(f"{measured.bits_per_byte:.4f} bits per byte")
    speed = statistics.median(generation_speeds(small, texts.held_out, BURSTS))
    inputs = (model, data)
    with build_directory(out / MODEL) as aside:
        written = write_variant(small, model, aside, out / MODEL)
        size = (aside / WEIGHTS).stat().st_size
        outcomes = {"added": measured.added, "bytes": size, "speed": speed}
        result = Compressed(
            path=out,
            measured=measured,
            foretold=outlook,
            promises=settle(ledger, ids, outcomes),
            bytes_full=sum(4 * p.numel() for p in teacher.parameters()),
            bytes=size,
            tokens_per_second_full=statistics.median(speeds_full),
            tokens_per_second=speed,
        )
        title = f"{model.resolve().name}, {config.method}"
        write_atomic(aside / CARD, model_card(title, small.config, inputs, facts(result)))
        write_manifest(
            aside, kind="model", config=written, machine=machine(), inputs=inputs,
            seed=student.seed,
        )  # fmt: skip
    write_json(out / RESULT, {"config": to_dict(config), **result.document()})
    return result
