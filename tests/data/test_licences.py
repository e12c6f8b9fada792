from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path

import pytest

from isoflop.data.licences import licence_of_text, licence_of_url

ROOT = Path(__file__).resolve().parents[2]


def test_our_own_licence_is_known() -> None:
    assert licence_of_text((ROOT / "LICENSE").read_text()) == "Apache-2.0"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MIT License\n\nCopyright (c) X\n\nPermission is hereby granted, free of charge, to any\n"
         "person obtaining a copy of this software", "MIT"),
        ("                    GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007", "GPL-3.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\nVersion 2.1, February 1999\n GNU General Public "
         "License version 2", "LGPL-2.1"),
        ("# SPDX-License-Identifier: BSD-3-Clause OR MIT\n", "BSD-3-Clause OR MIT"),
        ("Redistribution and use in source and binary forms, with or\nwithout ... Neither the name",
         "BSD-3-Clause"),
        ("Redistribution and use in source and binary forms, with or without", "BSD-2-Clause"),
        ("木兰宽松许可证, 第2版 Mulan Permissive Software License，Version 2 (Mulan PSL v2)",
         "MulanPSL-2.0"),
        ("Creative Commons\nAttribution-ShareAlike 4.0 International", "CC-BY-SA-4.0"),
        ("All rights reserved. Ask us.", None),
    ],
)  # fmt: skip
def test_families_are_told_by_their_phrases(text: str, name: str | None) -> None:
    assert licence_of_text(text) == name


def test_installed_packages_agree_with_what_they_say_of_themselves() -> None:
    known = {"MIT": "MIT", "Apache-2.0": "Apache-2.0", "BSD-3-Clause": "BSD-3-Clause",
             "BSD-2-Clause": "BSD-2-Clause", "MPL-2.0": "MPL-2.0", "ISC": "ISC"}  # fmt: skip
    checked = 0
    for package in distributions():
        said = known.get(package.metadata.get("License-Expression", ""))
        files = [f for f in package.files or () if f.name in ("LICENSE", "LICENSE.txt")]
        dual = package.metadata["Name"] == "python-dateutil"  # two licences in one file
        if said and not dual and len(files) == 1 and files[0].locate().is_file():  # type: ignore[attr-defined]
            found = licence_of_text(files[0].read_text("utf-8"))
            assert found == said, package.metadata["Name"]
            checked += 1
    assert checked > 5


def test_addresses_of_creative_commons_and_gnu_are_known() -> None:
    assert (
        licence_of_url("http://creativecommons.org/licenses/by-nc-nd/3.0/de/") == "CC-BY-NC-ND-3.0"
    )
    assert licence_of_url("https://www.gnu.org/licenses/old-licenses/gpl-2.0.html") == "GPL-2.0"
    assert licence_of_url("https://example.org/licenses/by/4.0") is None
