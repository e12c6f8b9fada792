"""A model opened for serving, with all that answers need; not for routes (`api.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.core.artifact import MANIFEST, read_json, sha256_file
from isoflop.core.errors import ArtifactError
from isoflop.loading import load_weights
from isoflop.models.decoder_weights import DecoderWeights
from isoflop.serving.builtin_tools import check_allowed
from isoflop.serving.chat_template import ChatTemplate, open_template
from isoflop.serving.costs import Promises, measure_costs
from isoflop.serving.engine import Engine
from isoflop.serving.feedback import FeedbackStore
from isoflop.serving.json_grammar import JsonGrammar, TokenTrie
from isoflop.serving.json_schema import compile_schema
from isoflop.serving.metrics import Metrics
from isoflop.serving.request import Grammar, Guard
from isoflop.serving.safety import SafetyFilter, open_filter
from isoflop.serving.settings import Settings
from isoflop.serving.vocabulary import Vocabulary
from isoflop.serving.worker import Worker


@dataclass(frozen=True)
class Service:
    """Everything behind the routes of one server."""

    directory: Path
    name: str
    sha256: str
    """Of the model's manifest, which holds the hashes of its files."""
    settings: Settings
    vocabulary: Vocabulary
    template: ChatTemplate
    worker: Worker
    metrics: Metrics
    end_ids: frozenset[int]
    """Tokens that end a document."""
    trie: TokenTrie
    safety: SafetyFilter | None
    feedback: FeedbackStore | None
    promises: Promises
    """What answers will cost, measured before the start."""

    @property
    def engine(self) -> Engine:
        """Behind the worker."""
        return self.worker.engine

    def grammar(self, schema: dict[str, Any] | None) -> Callable[[], Grammar]:
        """Makes grammars of JSON objects, or of JSON of a schema.

        Raises:
            RecipeError: The schema has parts that are not known here.
        """
        node = compile_schema(schema)
        return lambda: JsonGrammar(self.trie, node, self.end_ids | self.template.stop_ids)

    def guard(self) -> Callable[[], Guard] | None:
        """Makes guards of answers, or None where nothing is filtered."""
        return None if self.safety is None else self.safety.guard

    def close(self) -> None:
        """End the engine and close files."""
        self.worker.close()
        self.promises.settle()
        if self.feedback is not None:
            self.feedback.close()


def open_service(directory: Path, settings: Settings) -> Service:
    """Open a model directory for serving, and measure what answers will cost.

    Raises:
        ArtifactError: It is no model, its chat template is not valid, or the safety classifier
            is none or damaged.
        DataError: Its tokenizer or a category list cannot be read.
        RecipeError: A setting is out of its range, the draft model does not go with it, or Python
            is to run where nothing contains it.
    """
    check_allowed(settings.tools)
    weights, tokenizer = load_weights(directory)
    vocabulary = Vocabulary(tokenizer, weights.config.vocab_size)
    template = open_template(directory, vocabulary)
    feedback = None if settings.feedback is None else FeedbackStore(settings.feedback)
    safety = open_filter(
        settings.safety,
        settings.safety_lists,
        settings.audit,
        settings.safety_classifier,
        settings.safety_threshold,
    )
    draft = None if settings.draft_model is None else _draft(settings.draft_model, directory)
    engine = Engine(weights, vocabulary.bytes_of, settings.engine, draft)
    worker = Worker(engine, settings.most_waiting)
    promises = Promises(measure_costs(worker), settings.ledger)
    promises.write()
    name = settings.name or _name_of(directory)
    return Service(
        directory=directory,
        name=name,
        sha256=sha256_file(directory / MANIFEST),
        settings=settings,
        vocabulary=vocabulary,
        template=template,
        worker=worker,
        metrics=Metrics(engine, name, promises),
        end_ids=_end_ids(directory, tokenizer.eos_id),
        trie=TokenTrie(vocabulary.bytes_of),
        safety=safety,
        feedback=feedback,
        promises=promises,
    )


def _draft(directory: Path, served: Path) -> DecoderWeights:
    """The model that guesses ahead; its tokens must be those of the model that is served."""
    weights, _ = load_weights(directory)
    ours, theirs = (sha256_file(each / "tokenizer.json") for each in (served, directory))
    if ours != theirs:
        raise ArtifactError(
            "its tokenizer is not that of the model it guesses for",
            where=str(directory),
            fix="Take a smaller model that was trained on the same shards",
        )
    return weights


def _name_of(directory: Path) -> str:
    """The directory's name, and that of its run where it is the `model` of one."""
    resolved = directory.resolve()
    return resolved.parent.name if resolved.name == "model" else resolved.name


def _end_ids(directory: Path, eos_id: int) -> frozenset[int]:
    path = directory / "generation_config.json"
    said = read_json(path).get("eos_token_id") if path.exists() else None
    listed: Sequence[Any] = said if isinstance(said, list) else [said]
    return frozenset({eos_id, *(index for index in listed if isinstance(index, int))})
