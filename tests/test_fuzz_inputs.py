"""Files that anybody may have written, mangled: each is read, or refused with a reason, no more.

Recipes of every command, tables, laws, ledgers, instruction rows, tokenizers and model
directories. Other parsers are mangled beside their own tests: documents and archives
(data/sources), requests over HTTP (serving/test_fuzz.py).
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from isoflop.alignment.dpo_recipe import DpoRecipe, RewardRecipe
from isoflop.alignment.policy_recipe import GrpoRecipe, PpoRecipe
from isoflop.alignment.sft_recipe import SftRecipe
from isoflop.core.errors import IsoflopError
from isoflop.core.ledger import Ledger
from isoflop.core.recipe import load_recipe
from isoflop.data.instruct import instruct
from isoflop.data.instruct_recipe import InstructRecipe, InstructSource
from isoflop.data.recipe import DataRecipe
from isoflop.data.shards import Shards
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.laws import fit, load_law, read_for, read_table
from isoflop.laws.records import RunTable
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import import_model, load_decoder, save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.planning.mixing_recipe import MixtureRecipe
from isoflop.planning.recipe import LadderRecipe
from isoflop.training.recipe import TrainRecipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES: dict[str, type[Any]] = {
    "demo-data.toml": DataRecipe,
    "instruct.toml": InstructRecipe,
    "sft.toml": SftRecipe,
    "reward.toml": RewardRecipe,
    "dpo.toml": DpoRecipe,
    "grpo.toml": GrpoRecipe,
    "ppo.toml": PpoRecipe,
    "ladder.toml": LadderRecipe,
    "mixture.toml": MixtureRecipe,
    "train.toml": TrainRecipe,
    "t5.toml": TrainRecipe,
}
QUICK = settings(
    max_examples=30,
    deadline=None,
    print_blob=False,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WORDS = [
    b"-1",
    b"1e999",
    b"nan",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"\x00",
    b"\xff\xfe",
    b"true",
    b"9" * 40,
]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "drop", "put", "twice"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 40),
        st.sampled_from(WORDS),
    ),
    min_size=1,
    max_size=4,
)
"""What is done to a file: where, as a share of its length, how much, and what is put in."""


def mangled(content: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    for what, share, size, word in changes:
        at = int(share * len(content))
        if what == "flip" and content:
            content = content[:at] + bytes([content[at] ^ (1 << size % 8)]) + content[at + 1 :]
        elif what == "cut":
            content = content[:at]
        elif what == "drop":
            content = content[:at] + content[at + size :]
        elif what == "put":
            content = content[:at] + word + content[at:]
        elif what == "twice":
            content = content[: at + size] + content[at:]
    return content


def read_or_refused(read: Callable[[], object]) -> None:
    """Anything but an error of ours, which says what to do, is a failure of the test."""
    with contextlib.suppress(IsoflopError):
        read()


@pytest.mark.parametrize("name", RECIPES)
@given(changes=CHANGES)
@QUICK
def test_a_mangled_recipe_is_read_or_refused(name: str, changes: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(mangled((ROOT / "recipes" / name).read_bytes(), changes))
    read_or_refused(lambda: load_recipe(path, RECIPES[name]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("name", ["train.toml", "grpo.toml", "ladder.toml", "demo-data.toml"])
@given(data=st.data())
@QUICK
def test_any_value_at_any_key_of_a_recipe_is_taken_or_refused(name: str, data: Any) -> None:
    import tomllib

    from isoflop.core.recipe import from_dict

    raw = tomllib.loads((ROOT / "recipes" / name).read_text())
    table = data.draw(st.sampled_from(sorted(raw)))
    value = data.draw(VALUES)
    if isinstance(raw[table], dict) and data.draw(st.booleans()):
        raw[table][data.draw(st.sampled_from(sorted(raw[table])))] = value
    else:
        raw[table] = value
    read_or_refused(lambda: from_dict(RECIPES[name], raw, name))


# --- tables, laws, ledgers -----------------------------------------------------------------

ROWS = [
    {"params": n, "tokens": d, "loss": round(1.8 + 400 * n**-0.34 + 400 * d**-0.28, 4)}
    for n in (1e7, 1e8, 1e9)
    for d in (1e9, 1e10)
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("tables")
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "runs.parquet")
    lines = ["params,tokens,loss", *(",".join(map(str, row.values())) for row in ROWS)]
    return {
        "csv": ("\n".join(lines) + "\n").encode(),
        "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
        "parquet": (folder / "runs.parquet").read_bytes(),
    }


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@given(changes=CHANGES)
@QUICK
def test_a_mangled_table_is_read_or_refused(
    ending: str, changes: Any, tables: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"runs.{ending}"
    path.write_bytes(mangled(tables[ending], changes))
    read_or_refused(lambda: read_table(path))
    read_or_refused(lambda: read_for("mixture", [path]))


@given(changes=CHANGES)
@QUICK
def test_a_mangled_law_is_read_or_refused(changes: Any, whole_law: bytes, tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_bytes(mangled(whole_law, changes))

    def use() -> None:
        law = load_law(path)
        law.predict(params=1e9, tokens=1e11)  # type: ignore[union-attr]

    read_or_refused(use)


@pytest.fixture(scope="module")
def whole_law(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    columns = ([row[name] for row in ROWS] for name in ("params", "tokens", "loss"))
    path = tmp_path_factory.mktemp("law") / "law.json"
    fit(RunTable.from_arrays(*columns), "kaplan-nd", "lsq", bootstrap=100).save(path)
    return path.read_bytes()


@given(changes=CHANGES)
@QUICK
def test_a_mangled_ledger_is_refused_or_unchanged(changes: Any, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.unlink(missing_ok=True)
    ledger = Ledger(path)
    ledger.promise("loss", "nats", 2.0, 1.9, 2.1, 0.9, "a test")
    path.write_bytes(mangled(path.read_bytes(), changes))
    read_or_refused(ledger.read)


# --- rows and models -----------------------------------------------------------------------

PAIRS = "".join(
    json.dumps({"prompt": f"Say {i}.", "chosen": f"{i}", "rejected": "no"}) + "\n" for i in range(8)
).encode()


@given(changes=CHANGES)
@QUICK
def test_mangled_rows_are_read_or_refused(changes: Any, tmp_path: Path) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "set"
    path.write_bytes(mangled(PAIRS, changes))
    shutil.rmtree(out, ignore_errors=True)
    recipe = InstructRecipe((InstructSource("jsonl", path=path),), held_out_fraction=0.2)
    read_or_refused(lambda: instruct(recipe, out))


@pytest.fixture(scope="module")
def whole_model(tiny_shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = DecoderConfig(
        vocab_size=300, d_model=32, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=32, d_ff=32,
        max_seq_len=32,
    )  # fmt: skip
    model = Decoder(config)
    initialise(model, 1)
    path = tmp_path_factory.mktemp("model") / "model"
    save_model(model, path, tiny_shards.tokenizer_directory)
    return path


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
)
@given(changes=CHANGES)
@QUICK
def test_a_mangled_model_of_others_is_imported_or_refused(
    name: str, changes: Any, whole_model: Path, tmp_path: Path
) -> None:
    theirs, out = tmp_path / "theirs", tmp_path / "ours"
    for folder in (theirs, out):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole_model, theirs)
    (theirs / "manifest.json").unlink()  # others write none: nothing vouches for a file
    (theirs / name).write_bytes(mangled((theirs / name).read_bytes(), changes))

    def use() -> None:
        import_model(theirs, out)
        load_decoder(out)
        load_tokenizer(out)

    read_or_refused(use)
