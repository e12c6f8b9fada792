from __future__ import annotations

from pathlib import Path

import pytest

from isoflop.core.errors import RecipeError
from isoflop.core.recipe import load_recipe
from isoflop.data.recipe import DataRecipe, SourceConfig


def test_a_recipe_is_read_with_paths_relative_to_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "data.toml"
    file.write_text(
        'held_out_fraction = 0.5\n[[sources]]\nkind = "text"\npath = "texts"\n'
        '[[sources]]\nkind = "word-problems"\ndocuments = 5\n'
    )
    recipe = load_recipe(file, DataRecipe)
    assert recipe == DataRecipe(
        sources=(
            SourceConfig("text", path=tmp_path / "texts"),
            SourceConfig("word-problems", documents=5),
        ),
        held_out_fraction=0.5,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[sources]]\nkind = "text"\n', "data.toml:2?: .*needs a `path`"),
        ('[[sources]]\nkind = "python"\npath = "x"\n', "takes no `path`"),
        ('[[sources]]\nkind = "word-problems"\n', "needs `documents` or `max_bytes`"),
        ('[[sources]]\nkind = "python"\ndocuments = 3\n', "`documents` is for word-problems"),
        ('[[sources]]\nkind = "python"\nmax_bytes = 0\n', "`max_bytes` must be positive, not 0"),
        ('[[sources]]\nkind = "warc"\n', "needs a `path` or a `url`"),
        ('[[sources]]\nkind = "text"\npath = "a"\nurl = "s3://b"\n', "`path` or `url`, not both"),
        ('[[sources]]\nkind = "text"\nurl = "a/b"\n', "`url` must name a store"),
        ('[[sources]]\nkind = "git"\nurl = "https://x"\n', "git takes no `url`"),
        ('[[sources]]\nkind = "huggingface"\n', "needs a `dataset` or a `path`"),
        ('[[sources]]\nkind = "text"\npath = "x"\nsubset = "en"\n', "`subset` is for huggingface"),
        ('[[sources]]\nkind = "wikpedia"\npath = "x"\n', 'Did you mean "wikipedia"'),
        ("sources = []\n", "`sources` is empty"),
        ('held_out_fraction = 1.0\n[[sources]]\nkind = "python"\n', "data.toml:1.*between 0 and 1"),
        ('[[sources]]\nkind = "python"\n[[sources]]\nkind = "python"\n', "two sources are called"),
        ('[[sources]]\nkind = "python"\nmax_byte = 5\n', "data.toml:3.*Did you mean `.*max_bytes`"),
        ('[[sources]]\nkind = "pyhton"\n', 'data.toml:2.*Did you mean "python"'),
    ],
)
def test_an_impossible_recipe_is_refused_with_the_reason(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "data.toml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(file, DataRecipe)
