"""Rounds of own answers: what they write and go on from, a server in place of the sampler, and
where rounds of DPO end on a table."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from isoflop.alignment.dpo_run import REFERENCE
from isoflop.alignment.iterate_recipe import IterateRecipe
from isoflop.alignment.preference import PairLogprobs, dpo_loss
from isoflop.cli.main import main
from isoflop.core.errors import RecipeError
from isoflop.core.recipe import from_dict, load_recipe
from isoflop.data.instruct import instruct, open_set
from isoflop.data.instruct_recipe import InstructRecipe

HEAD = """
[model]
path = "{model}"
[data]
set = "{model}/../../set"
[[rewards]]
kind = "length"
tokens = 2
[draw]
prompts = 12
answers = 6
max_new_tokens = 12
[optimizer]
learning_rate = 1e-3
schedule = "constant"
warmup_tokens = 0
[train]
rounds = 2
batch_rows = 4
micro_batch_rows = 2
eval_answers = 6
threads = 1
tensorboard = false
"""
SFT = """
[model]
path = "{folder}/model"
[data]
set = "{out}/set"
[optimizer]
learning_rate = 1e-2
schedule = "constant"
warmup_tokens = 0
[train]
epochs = 8
global_batch_tokens = 384
micro_batch_tokens = 384
eval_answers = 0
threads = 1
tensorboard = false
"""


pytestmark = pytest.mark.usefixtures("calibrated")


@pytest.fixture(scope="module")
def answering(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, calibrated_cache: Path
) -> Path:
    """A model that has learnt to answer with a few words of different lengths, and to end."""
    out = tmp_path_factory.mktemp("answering")
    rows = []
    for number in range(160):
        asked = {"prompt": f"word {number}", "answer": "1"}
        rows += [asked, {**asked, "completion": ("1", "1 2", "1 2 3", "1 2 3 4")[number % 4]}]
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"kind": "jsonl", "path": str(out / "rows.jsonl")}
    instruct(from_dict(InstructRecipe, {"sources": [source]}, "test"), out / "set")
    (out / "sft.toml").write_text(SFT.format(folder=folder, out=out))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(calibrated_cache))
        assert main(["sft", str(out / "sft.toml"), "-o", str(out / "run"), "--json"]) == 0
    return out / "run" / "model"


def recipe_at(path: Path, folder: Path, model: Path, text: str = "", **changed: Any) -> Path:
    head = HEAD.format(folder=folder, model=model)
    for key, value in changed.items():
        lines = head.splitlines()
        place = next(i for i, line in enumerate(lines) if line.startswith(f"{key} = "))
        lines[place] = f"{key} = {json.dumps(value)}"
        head = "\n".join(lines) + "\n"
    path.write_text(text + head)
    return path


@pytest.mark.parametrize("learn", ["sft", "dpo"])
def test_each_round_is_drawn_by_the_model_of_the_round_before_and_none_is_done_twice(
    learn: str,
    folder: Path,
    answering: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = recipe_at(tmp_path / "r.toml", folder, answering, f'learn = "{learn}"\n')
    out = tmp_path / "run"
    capsys.readouterr()
    assert main(["iterate", str(recipe), "-o", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["rounds"]) == 2
    assert Path(result["made"]) == out / "round_2" / "run" / "model"
    kind = {"sft": "supervised", "dpo": "preference"}[learn]
    for number, each in enumerate(result["rounds"], 1):
        rows = open_set(out / f"round_{number}" / "set").rows(kind, "train")  # type: ignore[arg-type]
        assert len(rows) == each["rows"] > 0
        best = each["best_of"]["best"]
        assert best["1"] <= best["2"] <= best["4"]
        run = json.loads((out / f"round_{number}" / "run" / "config.json").read_text())["recipe"]
        begun = answering if number == 1 else out / "round_1" / "run" / "model"
        assert Path(run["model"]["path"]) == begun
    if learn == "dpo":
        # The reference of every round is the first model: in round 2 the policy is no longer it.
        assert Path(run["dpo"]["reference"]) == answering
        assert (out / "round_2" / "run" / REFERENCE).exists()
    before = (out / "round_1" / "run" / "metrics.jsonl").read_bytes()
    drawn = (out / "round_2" / "set" / "manifest.json").read_bytes()
    # A kill before the end: what is finished stays, and the same comes out.
    (out / "result.json").unlink()
    (out / "manifest.json").unlink()
    assert main(["iterate", str(recipe), "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result
    assert (out / "round_1" / "run" / "metrics.jsonl").read_bytes() == before
    assert (out / "round_2" / "set" / "manifest.json").read_bytes() == drawn


def test_the_reference_of_a_later_round_is_another_model_than_its_start(
    folder: Path, answering: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = {}
    for reference in ("first", "previous"):
        text = f'learn = "dpo"\nreference = "{reference}"\n'
        recipe = recipe_at(tmp_path / f"{reference}.toml", folder, answering, text)
        out = tmp_path / reference
        assert main(["iterate", str(recipe), "-o", str(out), "--json"]) == 0
        rounds = [out / f"round_{n}" / "run" / REFERENCE for n in (1, 2)]
        held[reference] = [safetensors.torch.load_file(path)["0"] for path in rounds]
    capsys.readouterr()
    assert torch.equal(held["first"][0], held["previous"][0])
    # The same answers of round 2 under two references.
    assert not torch.allclose(held["first"][1], held["previous"][1], atol=1e-3)


class Server(BaseHTTPRequestHandler):
    """Says what a model might."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = "The answer is 1." if asked["seed"] % 2 else "1"
        content = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()
        thread.join()


def test_a_server_may_draw_in_place_of_the_sampler(
    server: str,
    folder: Path,
    answering: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = recipe_at(tmp_path / "r.toml", folder, answering, 'learn = "nothing"\n', rounds=1)
    asked = f'\n[draw.server]\nurl = "{server}"\nmodel = "m"\n'
    recipe.write_text(recipe.read_text() + asked)
    capsys.readouterr()
    assert main(["iterate", str(recipe), "-o", str(tmp_path / "run"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert Path(result["made"]) == tmp_path / "run" / "round_1" / "set"
    rows = open_set(tmp_path / "run" / "round_1" / "set").rows("supervised", "train")
    # Shorter is better here; texts of a server have no ids of ours.
    assert {row["messages"][-1]["content"] for row in rows} == {"1"}
    assert all("ids" not in row["messages"][-1] for row in rows)


def test_impossible_rounds_list_all_their_problems(folder: Path, tmp_path: Path) -> None:
    text = 'learn = "dpo"\n'
    recipe = recipe_at(tmp_path / "r.toml", folder, tmp_path, text, answers=1, micro_batch_rows=3)
    recipe.write_text(
        recipe.read_text() + '[keep]\nbest = 2\n[draw.server]\nurl = "http://x"\nmodel = "m"\n'
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, IterateRecipe)
    for part in ("at least 2 for dpo", "not a multiple", "keep is for sft", "does not learn"):
        assert part in str(caught.value)


# --- the fixed points of rounds ------------------------------------------------------------


def best_policy(policy: torch.Tensor, reference: torch.Tensor, reward: torch.Tensor, beta: float):  # type: ignore[no-untyped-def]
    """log π that DPO ends at on pairs that `policy` draws, labelled by Bradley and Terry."""
    count = len(reward)
    first, second = (
        grid.flatten() for grid in torch.meshgrid(*[torch.arange(count)] * 2, indexing="ij")
    )
    drawn = (policy[first] + policy[second]).exp()
    wrong = torch.sigmoid(reward[second] - reward[first])
    logits = policy.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [logits], max_iter=2000, tolerance_grad=1e-14, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        search.zero_grad()
        now = logits.log_softmax(0)
        each = [
            dpo_loss(PairLogprobs(now[i : i + 1], now[j : j + 1], reference[i : i + 1],
                                  reference[j : j + 1]), beta, e)
            for i, j, e in zip(first, second, wrong, strict=True)
        ]  # fmt: skip
        loss = (drawn * torch.stack(each)).sum()
        loss.backward()
        return loss

    search.step(closure)
    return logits.detach().log_softmax(0)


@pytest.mark.parametrize("reference", ["first", "previous"])
def test_rounds_of_on_policy_dpo_end_where_the_recipe_says(reference: str) -> None:
    draw = torch.Generator().manual_seed(1)
    start = torch.randn(5, generator=draw, dtype=torch.float64).log_softmax(0)
    reward, beta, rounds = torch.randn(5, generator=draw, dtype=torch.float64), 0.7, 3
    policy = start
    for _ in range(rounds):
        policy = best_policy(policy, start if reference == "first" else policy, reward, beta)
    times = 1 if reference == "first" else rounds
    closed = (start + times * reward / beta).log_softmax(0)
    torch.testing.assert_close(policy, closed, atol=1e-5, rtol=0)
