import shutil
from pathlib import Path

from isoflop.data.shards import Shards
from isoflop.reporting.inventory.ancestry import ancestry, damages
from isoflop.reporting.inventory.identify import identify


def test_a_run_leads_back_to_the_text_it_was_made_from(tiny_shards: Shards, trained: Path) -> None:
    steps = ancestry(identify(trained))
    home = tiny_shards.directory.parent
    assert [(step.depth, Path(step.path), step.kind) for step in steps] == [
        (1, home / "shards", "shards"),
        (2, home / "corpus", "corpus"),
        (3, home / "lines.jsonl", "documents"),
        (2, home / "tokenizer", "tokenizer"),
    ]
    assert all(step.unchanged for step in steps)
    assert all(step.commands for step in steps if step.kind != "documents")


def test_an_input_that_was_changed_or_taken_away_is_told(
    tiny_shards: Shards, tmp_path: Path
) -> None:
    home = tmp_path / "moved"
    shutil.copytree(tiny_shards.directory.parent, home)
    manifest = home / "shards" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(tiny_shards.directory.parent), str(home)))
    with open(home / "corpus" / "manifest.json", "a") as file:
        file.write("\n")
    shutil.rmtree(home / "tokenizer")
    told = {Path(s.path).name: s.unchanged for s in ancestry(identify(home / "shards"))}
    assert told["corpus"] is False
    assert told["tokenizer"] is None


def test_inputs_that_moved_together_are_found_beside(tiny_shards: Shards, tmp_path: Path) -> None:
    home = tmp_path / "elsewhere"
    shutil.copytree(tiny_shards.directory.parent, home)
    manifest = home / "shards" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(tiny_shards.directory.parent), "/gone"))
    paths = [Path(step.path) for step in ancestry(identify(home / "shards"))]
    assert paths[:1] == [home / "corpus"]


def test_one_changed_byte_and_one_missing_file_are_found(trained: Path, tmp_path: Path) -> None:
    assert damages(identify(trained)) == ()
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    weights = run / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (run / "evals.jsonl").unlink()
    found = {damage.path: damage.what for damage in damages(identify(run))}
    assert "is missing" in found[str(run / "evals.jsonl")]
    assert "differs" in found[str(weights)]
