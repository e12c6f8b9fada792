"""Which licence a text or an address is, as an SPDX name. Not legal advice: families, by phrase."""

from __future__ import annotations

import re

_NAMED = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9][\w.+() -]{1,80})")
# A text must hold all phrases of a row, blanks aside; of rows that begin alike, the first decides.
_PHRASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("AGPL-3.0", ("gnu affero general public license", "version 3")),
    ("LGPL-3.0", ("gnu lesser general public license", "version 3")),
    ("LGPL-2.1", ("gnu lesser general public license", "version 2.1")),
    ("LGPL-2.0", ("gnu library general public license", "version 2")),
    ("GPL-3.0", ("gnu general public license", "version 3")),
    ("GPL-2.0", ("gnu general public license", "version 2")),
    ("GFDL-1.3", ("gnu free documentation license", "version 1.3")),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("MPL-2.0", ("mozilla public license", "2.0")),
    ("EPL-2.0", ("eclipse public license", "2.0")),
    ("EPL-1.0", ("eclipse public license", "1.0")),
    ("BSL-1.0", ("boost software license", "version 1.0")),
    ("MulanPSL-2.0", ("mulan psl v2",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("CC0-1.0", ("creative commons legal code", "cc0 1.0")),
    ("CC-BY-NC-SA-4.0", ("attribution-noncommercial-sharealike 4.0 international",)),
    ("CC-BY-NC-ND-4.0", ("attribution-noncommercial-noderivatives 4.0 international",)),
    ("CC-BY-NC-4.0", ("attribution-noncommercial 4.0 international",)),
    ("CC-BY-SA-4.0", ("attribution-sharealike 4.0 international",)),
    ("CC-BY-ND-4.0", ("attribution-noderivatives 4.0 international",)),
    ("CC-BY-4.0", ("attribution 4.0 international",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("WTFPL", ("do what the fuck you want to public license",)),
    ("PSF-2.0", ("python software foundation license",)),
    ("Zlib", (
        "provided 'as-is', without any express or implied warranty",
        "altered source versions must be plainly marked",
    )),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software for any purpose",)),
    ("ISC", ("permission to use, copy, modify, and distribute this software for any purpose",)),
    ("MIT", ("permission is hereby granted, free of charge, to any person obtaining a copy",)),
    ("BSD-4-Clause", (
        "redistribution and use in source and binary forms",
        "all advertising materials mentioning features",
    )),
    ("BSD-3-Clause", (
        "redistribution and use in source and binary forms", "neither the name",
    )),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
)  # fmt: skip
_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses/(by(?:-nc)?(?:-sa|-nd)?|by-(?:sa|nd)-nc)/(\d\.\d)"
    r"|publicdomain/zero/(\d\.\d))",
    re.I,
)
_GNU = re.compile(
    r"gnu\.org/(?:licenses|copyleft)/(?:old-licenses/)?(fdl|l?gpl|agpl)-(\d\.\d)", re.I
)
# A licence says what it is early; a NOTICE of other people's licences goes on for long.
_HEAD_CHARACTERS = 6_000


def licence_of_text(text: str) -> str | None:
    """The SPDX name of a licence file, or None when it is none of the families known here."""
    named = _NAMED.search(text[:_HEAD_CHARACTERS])
    if named:
        return named.group(1).strip()
    head = " ".join(text[:_HEAD_CHARACTERS].casefold().replace("’", "'").replace("‘", "'").split())
    # A licence names itself first, and others later.
    found = [
        (head.index(phrases[0]), name)
        for name, phrases in _PHRASES
        if all(phrase in head for phrase in phrases)
    ]
    return min(found, key=lambda place: place[0])[1] if found else None


def licence_of_url(url: str) -> str | None:
    """The SPDX name of a licence by its address, for Creative Commons and GNU."""
    if found := _CREATIVE_COMMONS.search(url):
        kind, version, zero = found.groups()
        return f"CC0-{zero}" if zero else f"CC-{kind.upper()}-{version}"
    if found := _GNU.search(url):
        kind = found.group(1).upper()
        return f"{'GFDL' if kind == 'FDL' else kind}-{found.group(2)}"
    return None
