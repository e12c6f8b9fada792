"""A small model with its tokenizer, served in this process and over a real socket."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn

from isoflop.data.shards import Shards
from isoflop.data.tokenizer import Tokenizer, load
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.serving.api import build_app
from isoflop.serving.server import listen
from isoflop.serving.service import Service, open_service
from isoflop.serving.settings import Settings


def make_decoder(vocab_size: int = 97, seed: int = 0, **changes: object) -> Decoder:
    """A decoder whose every parameter is random and matters."""
    sizes: dict[str, object] = {
        "vocab_size": vocab_size, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
        "head_dim": 8, "d_ff": 48, "max_seq_len": 192,
    }  # fmt: skip
    model = build_model(DecoderConfig(**{**sizes, **changes}))  # type: ignore[arg-type]
    initialise(model, seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5, generator=draw)
            elif "embed" in name or not parameter.any():
                parameter.normal_(0.0, 0.4, generator=draw)
    assert isinstance(model, Decoder)
    return model.eval()


@pytest.fixture
def decoder_of() -> Callable[..., Decoder]:
    """`decoder_of(vocab_size=97, seed=0, **changes)`."""
    return make_decoder


@pytest.fixture(scope="session")
def tokenizer(tiny_shards: Shards) -> Tokenizer:
    """A byte-level tokenizer of 300 tokens."""
    return load(tiny_shards.directory.parent / "tokenizer")


@pytest.fixture(scope="session")
def model_dir(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of a random model with that tokenizer."""
    out = tmp_path_factory.mktemp("served") / "tiny-model"
    save_model(make_decoder(tokenizer.vocab_size, max_seq_len=256), out, tokenizer.directory)
    return out


@dataclass(frozen=True)
class Served:
    """A server in a thread of this process, on a real socket."""

    address: str
    service: Service

    def client(self, **more: Any) -> Any:
        """OpenAI's own client, which tries nothing twice."""
        openai = pytest.importorskip("openai")
        given = {"api_key": "none", "max_retries": 0, "timeout": 60, **more}
        return openai.OpenAI(base_url=f"{self.address}/v1", **given)

    def ask(
        self, path: str, body: object = None, *, raw: bytes | None = None, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        """(status, JSON or text, headers) of a GET, or of a POST where there is a body."""
        data = raw if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.address + path, data, sent)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                content, status, got = reply.read(), reply.status, dict(reply.headers)
        except urllib.error.HTTPError as error:
            with error:
                content, status, got = error.read(), error.code, dict(error.headers)
        if "json" in got.get("content-type", ""):
            return status, json.loads(content), got
        return status, content.decode(), got

    def idle(self) -> bool:
        """Wait until nothing is computed; whether all memory was given back then."""
        for _ in range(2000):
            load = self.service.engine.load()
            if not self.service.worker.n_open and not load.running and not load.waiting:
                return load.blocks_held == 0
            time.sleep(0.005)
        return False


@contextmanager
def running(model_dir: Path, settings: Settings) -> Iterator[Served]:
    """A server of the model for as long as the block lasts."""
    bound = listen("127.0.0.1", 0)
    service = open_service(model_dir, settings)
    config = uvicorn.Config(build_app(service), log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield Served(f"http://127.0.0.1:{bound.getsockname()[1]}", service)
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


@pytest.fixture(scope="session")
def served(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server without a filter, with a feedback store."""
    store = tmp_path_factory.mktemp("feedback") / "store.sqlite"
    with running(model_dir, Settings(name="tiny", feedback=store)) as server:
        yield server


@pytest.fixture
def serving(model_dir: Path) -> Callable[..., AbstractContextManager[Served]]:
    """`with serving(api_key=…) as served:`"""
    return lambda directory=model_dir, **settings: running(
        directory, Settings(**{"name": "tiny", **settings})
    )
