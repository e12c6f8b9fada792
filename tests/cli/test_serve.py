"""`isoflop serve` as a process: what it says, how it ends, and why it does not start."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.main import main
from isoflop.cli.serve import run
from isoflop.core.errors import RecipeError
from isoflop.data import extras
from isoflop.data.shards import Shards
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import save_model
from isoflop.models.initialise import initialise


@pytest.fixture(scope="module")
def model_dir(tiny_shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's model of some thousand parameters."""
    out = tmp_path_factory.mktemp("run") / "small" / "model"
    model = build_model(DecoderConfig(300, 32, 1, 2, 1, 16, 48, max_seq_len=1024))
    initialise(model, 0)
    save_model(model, out, tiny_shards.directory.parent / "tokenizer")
    return out


def test_an_answer_under_way_is_finished_when_the_server_is_told_to_stop(
    isoflop: Any, model_dir: Path
) -> None:
    with isoflop.start("serve", model_dir, "--port", "0") as process:
        first = process.stdout.readline()
        assert first.startswith("small (context 1024) at http://127.0.0.1:")
        address = first.split()[-1]
        assert f"{address}/v1" in "".join(process.stdout.readline() for _ in range(2))
        body = {
            "model": "small", "prompt": "loss", "max_tokens": 400, "stream": True,
            "ignore_eos": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        request = urllib.request.Request(
            f"{address}/v1/completions", json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=120) as reply:
            reply.readline()
            process.send_signal(signal.SIGTERM)
            lines = [line for line in reply.read().decode().splitlines() if line]
        assert lines[-1] == "data: [DONE]"
        assert json.loads(lines[-2][6:])["usage"]["completion_tokens"] == 400
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "Traceback" not in err


def test_the_start_is_told_as_one_json_document(isoflop: Any, model_dir: Path) -> None:
    with isoflop.start("serve", model_dir, "--port", "0", "--name", "m", "--json") as process:
        lines = []
        while not lines or lines[-1] != "}\n":
            lines.append(process.stdout.readline())
            assert lines[-1]
        said = json.loads("".join(lines))
        assert (said["model"], said["batch_invariant"], said["safety"]) == ("m", True, "off")
        code, err = process.end(signal.SIGINT)
        assert code == 0, err
        assert "Traceback" not in err


def test_what_cannot_be_served_is_told_in_one_paragraph(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(model_dir), "--port", port]) == 2
        assert f"port {port} is taken" in capsys.readouterr().err
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert "not a finished model" in capsys.readouterr().err
    assert main(["serve", str(model_dir.parent), "--port", "0"]) == 2
    assert f"Open {model_dir}" in capsys.readouterr().err
    assert main(["serve", str(model_dir), "--port", "99999"]) == 2
    assert "99999 is no port" in capsys.readouterr().err
    assert main(["serve", str(model_dir), "--port", "0", "--token-budget", "0"]) == 2
    assert "token_budget = 0" in capsys.readouterr().err

    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(extras.importlib, "import_module", absent)
    with pytest.raises(RecipeError, match=r"isoflop\[serve\]"):
        run([str(model_dir)])
