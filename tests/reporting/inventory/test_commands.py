import shlex
import shutil
from pathlib import Path

import pytest

from isoflop.cli.main import COMMANDS, main
from isoflop.core.artifact import write_json
from isoflop.data.shards import Shards
from isoflop.reporting.inventory.commands import _NEXT, continued_by, made_by, next_for
from isoflop.reporting.inventory.identify import identify


def test_the_commands_that_repeat_a_run_give_the_same_model(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], calibrated: None,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    show, again = made_by(identify(trained), tmp_path / "again")
    words = shlex.split(show.line)
    assert words[-2] == ">"
    capsys.readouterr()
    assert main(words[1:-2]) == 0
    (tmp_path / words[-1]).write_text(capsys.readouterr().out)
    assert main(shlex.split(again.line)[1:]) == 0
    weights = "model/model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (trained / weights).read_bytes()


def test_the_commands_that_continue_a_run_finish_it(
    trained: Path, unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], calibrated: None,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    show, go_on = continued_by(identify(unfinished))
    words = shlex.split(show.line)
    capsys.readouterr()
    assert main(words[1:-2]) == 0
    (tmp_path / words[-1]).write_text(capsys.readouterr().out)
    assert main(shlex.split(go_on.line)[1:]) == 0
    assert identify(unfinished).status == "complete"
    assert continued_by(identify(trained)) == ()


def test_the_commands_that_repeat_data_name_what_it_was_made_from(tiny_shards: Shards) -> None:
    home = tiny_shards.directory.parent
    (tokenized,) = made_by(identify(home / "shards"), Path("new"))
    (learnt,) = made_by(identify(home / "tokenizer"), Path("new"))
    assert tokenized.line == f"isoflop tokenize {home}/corpus --tokenizer {home}/tokenizer -o new"
    assert learnt.line == f"isoflop tokenizer train {home}/corpus --vocab-size 300 -o new"


def test_paths_with_spaces_are_quoted(tiny_shards: Shards, tmp_path: Path) -> None:
    spaced = tmp_path / "my shards"
    shutil.copytree(tiny_shards.directory, spaced)
    assert all(f"'{spaced}'" in command.line for command in next_for(identify(spaced)))


def test_an_unfinished_demo_goes_on_with_its_own_minutes(tmp_path: Path) -> None:
    write_json(tmp_path / "demo.json", {"minutes": 4.0, "seed": 3})
    (command,) = next_for(identify(tmp_path))
    assert command.line == f"isoflop demo --out {tmp_path} --minutes 4.0 --seed 3"


def test_every_command_that_is_proposed_is_one_of_ours() -> None:
    lines = [line for rows in _NEXT.values() for line, _ in rows]
    programs = {line.split()[0] for line in lines}
    assert programs == {"isoflop", "llama-cli"}
    assert {line.split()[1] for line in lines if line.startswith("isoflop")} <= set(COMMANDS)
