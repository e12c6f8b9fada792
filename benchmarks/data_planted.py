"""Personal data and evaluation items planted in text: what `isoflop data build` finds of them.

    python benchmarks/data_planted.py [--documents 4000] [--items 1000]

Documents are docstrings of the standard library and generated word problems in Chinese. Personal
data in the forms that standards and vendors print go into half the lines, look-alikes (ISBN, dates,
hashes, versions, numbers whose checksum fails) into the other half; a build with
`clean.pii.action = "redact"` must mask all of the first and nothing else. A quarter of the
evaluation items is hidden in documents in another case or layout, a quarter with one word changed,
the others are held back; a build with `[decontaminate]` must find the first and flag none of the
last.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixture_search import manual

from isoflop.cli.main import main as isoflop
from isoflop.data import corpus
from isoflop.data.word_problems import word_problem

MARK = "----"
SHOWN = 40
ENGLISH_CARRIERS = (
    "Please reach me at {} before Friday.", "Contact: {}", "({})", "see {}, thanks!", "[{}]",
    "The record says {}; nothing more.", "* {}", "It was {}.", "user = {}", "{} was entered twice.",
)  # fmt: skip
CHINESE_CARRIERS = (
    "联系方式：{}。", "请联系{}，谢谢", "用户信息 {} 已更新", "登记的是{}（工作）", "备注:{}",
    "资料为“{}”。", "{}是他留下的", "（{}）", "如有疑问，{} 可用", "1、{}",
)  # fmt: skip


def digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choices(string.digits, k=count))


def letters(draw: random.Random, count: int, more: str = string.digits) -> str:
    return "".join(draw.choices(string.ascii_letters + more, k=count))


def fill(draw: random.Random, form: str) -> str:
    """A form with `#` as any digit, `N` as one from 2 to 9."""
    form = re.sub("N", lambda _: str(draw.randint(2, 9)), form)
    return re.sub("#", lambda _: draw.choice(string.digits), form)


# --- personal data ---------------------------------------------------------------------------


def email(draw: random.Random) -> str:
    name = letters(draw, draw.randint(3, 8), "").lower()
    local = draw.choice(
        (name, f"{name}.{name[:2]}", f"{name}+lists", f"{name}_{digits(draw, 2)}",
         f"{name.capitalize()}-{name[:3]}", digits(draw, 9))
    )  # fmt: skip
    hosts = ("gmail.com", "163.com", "qq.com", "mail.tsinghua.edu.cn", "uni-bonn.de", "corp.co.uk")
    return f"{local}@{draw.choice(hosts)}"


def phone(draw: random.Random) -> str:
    forms = (
        "(N##) N##-####", "(N##)N##-####", "N##-N##-####", "N##.N##.####", "+1 N## N## ####",
        "+1-N##-N##-####", "+1N##N######", "1-800-N##-####", "+44 20 7### ####",
        "+44 (0)20 7### ####", "020 7### ####", "+44 7700 9#####", "07700 9#####",
        "+49 30 9######", "+49 (0)30 9######", "+33 1 4# ## ## ##", "01 4# ## ## ##",
        "+81 3-####-####", "03-####-####", "+91 98### #####", "+7 495 ###-##-##",
        "010-6#######", "021-5#######", "(010)6#######", "(0755) 2#######", "（021）5#######",
        "0571-8#######", "0571 8#######", "400-8##-####", "+86 10 6#######", "+86-21-5#######",
    )  # fmt: skip
    return fill(draw, draw.choice(forms))


def mobile(draw: random.Random) -> str:
    number = "1" + draw.choice(("3#", "5N", "66", "7N", "8#", "98")) + "########"
    number = fill(draw, number)
    a, b, c = number[:3], number[3:7], number[7:]
    return draw.choice(
        (number, number, f"{a} {b} {c}", f"{a}-{b}-{c}", f"+86{number}", f"+86 {number}",
         f"+86-{number}", f"0086 {number}", f"(+86){number}", f"86-{number}", f"+86 {a} {b} {c}")
    )  # fmt: skip


def luhn_number(draw: random.Random, prefix: str, length: int) -> str:
    body = prefix + digits(draw, length - 1 - len(prefix))
    for check in string.digits:  # the check digit found by trying, not by formula
        total = 0
        for place, digit in enumerate(reversed(body + check)):
            value = int(digit) * (2 if place % 2 else 1)
            total += value // 10 + value % 10
        if total % 10 == 0:
            return body + check
    raise AssertionError("one of ten digits fits")


def card(draw: random.Random) -> str:
    prefix, length = draw.choice(
        (("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("2720", 16), ("37", 15), ("34", 15),
         ("6011", 16), ("3528", 16), ("62", 16), ("622202", 19))
    )  # fmt: skip
    number = luhn_number(draw, prefix, length)
    sizes = (4, 6, 5) if length == 15 else (4, 4, 4, 4, 3)
    mark = draw.choice(("", "", " ", "-"))
    parts, rest = [], number
    for size in sizes:
        parts, rest = [*parts, rest[:size]], rest[size:]
    return mark.join(part for part in parts if part)


def identity(draw: random.Random) -> str:
    region = draw.choice(("110105", "310104", "440106", "510107", "330102", "420111", "820000"))
    year, month, day = draw.randint(1935, 2018), draw.randint(1, 12), draw.randint(1, 28)
    body = f"{region}{year}{month:02}{day:02}{digits(draw, 3)}"
    for check in "0123456789X":  # ISO 7064 MOD 11-2: the whole number is 1 modulo 11
        value = 10 if check == "X" else int(check)
        if (sum(int(d) * 2 ** (17 - i) for i, d in enumerate(body)) + value) % 11 == 1:
            return body + (check.lower() if draw.random() < 0.3 else check)
    raise AssertionError("one of eleven fits")


def address(draw: random.Random) -> str:
    def group() -> str:
        return f"{draw.randint(1, 65535):x}"

    four = ".".join(str(draw.randint(128, 199)) for _ in range(4))
    six = draw.choice(
        (":".join(["2a02", *(group() for _ in range(7))]), f"2001:{group()}::{group()}",
         f"fe80::{group()}:1", f"2400:{group()}:{group()}::8888")
    )  # fmt: skip
    return draw.choice((four, four, four, six, six.upper()))


def key(draw: random.Random) -> str:
    kind = draw.choice(("RSA ", "EC ", "OPENSSH ", ""))
    lines = "\n".join(letters(draw, 64, string.digits + "+/") for _ in range(4))
    upper = "".join(draw.choices(string.ascii_uppercase + string.digits, k=16))
    return draw.choice(
        (
            f"AKIA{upper}", f"ASIA{upper}", f"ghp_{letters(draw, 36)}", f"gho_{letters(draw, 36)}",
            f"github_pat_{letters(draw, 22)}_{letters(draw, 59)}", f"sk-{letters(draw, 48)}",
            f"sk-proj-{letters(draw, 60)}", f"sk-ant-api03-{letters(draw, 80)}",
            f"sk_live_{letters(draw, 24)}", f"xoxb-{digits(draw, 12)}-{letters(draw, 24)}",
            f"AIza{letters(draw, 35)}", f"hf_{letters(draw, 34)}", f"glpat-{letters(draw, 20)}",
            f"npm_{letters(draw, 36)}",
            f"eyJhbGciOiJIUzI1NiJ9.eyJ{letters(draw, 30)}.{letters(draw, 43)}",
            f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----",
        )
    )  # fmt: skip


PLANTS: dict[str, Callable[[random.Random], str]] = {
    "EMAIL": email, "PHONE": phone, "CN-MOBILE": mobile, "CARD": card, "CN-ID": identity,
    "IP": address, "KEY": key,
}  # fmt: skip


def look_alike(draw: random.Random) -> str:
    """What resembles personal data and is none."""
    number = card(draw)
    wrong = number[:-1] + str((int(number[-1]) + draw.randint(1, 9)) % 10)
    person = identity(draw)
    other = person[:-1] + draw.choice([d for d in "0123456789X" if d != person[-1].upper()])
    return draw.choice(
        (
            wrong, other, fill(draw, "978-7-###-#####-#"), fill(draw, "ISBN 97801########"),
            fill(draw, "ISSN ####-####"), fill(draw, "20##-0N-1#"),
            fill(draw, "20##-0N-1#T1#:5#:0#Z"), fill(draw, "1#.0N.19##"), fill(draw, "v#.1#.#.#"),
            fill(draw, "version 1.#.1#.#"), fill(draw, "第#.#.#.#节"),
            str(uuid.UUID(int=draw.getrandbits(128))), f"{draw.getrandbits(160):040x}",
            f"{draw.getrandbits(128):032x}",
            fill(draw, "3.14159265358####"), fill(draw, "N#,###,###.##"), fill(draw, "1N,###,###"),
            fill(draw, "(-N#.####, 1##.####)"), fill(draw, "doi:10.####/s#####-0##-#####-#"),
            fill(draw, "arXiv:2###.#####"), fill(draw, "1#:2#:3#"), fill(draw, "N# x N# = N###"),
            fill(draw, "0x########"), fill(draw, "RFC N###"), fill(draw, "订单号:N#######"),
            fill(draw, "20##年1月N日"), fill(draw, "N####元"), fill(draw, "￥N,###.00"),
            fill(draw, "19##-20##"), fill(draw, "pp. 1##-1##"), fill(draw, "GB/T #####-20##"),
            fill(draw, "1 2 3 4 5 6 7 8 9 1#"), "user@host", "me at example dot com", "@property",
            "a@2x.png", "pip install name==1.2.3", "127.0.0.1", "std::string::npos", "::",
            "password: ask the admin", "token = None", "sk-learn", "the key is under the mat",
            fill(draw, "1N##########"), fill(draw, "第1N###########号"), "192.168.1.300",
            fill(draw, "N###-N###-N###"), fill(draw, "(N##) pages"), fill(draw, "#.####e-1#"),
        )
    )  # fmt: skip


def prose(draw: random.Random) -> tuple[list[str], list[str]]:
    """Sentences in English and in Chinese without digits or marks of addresses."""
    english = {
        " ".join(sentence.split())
        for text in manual()
        for sentence in re.split(r"(?<=\.)\s+|\n\n", text)
        if 40 < len(sentence) < 200 and not re.search(r"[\d@:<>]", sentence)
    }
    chinese = {word_problem(5, 2 * n + 1)[0].split("\n")[0] for n in range(4_000)}
    chinese = {re.sub(r"\d+", "几", text) for text in chinese}
    found = sorted(english), sorted(chinese)
    for sentences in found:
        draw.shuffle(sentences)
    return found


def personal_data(folder: Path, count: int) -> None:
    draw = random.Random(2024)
    english, chinese = prose(draw)
    wanted: dict[str, list[tuple[str, str]]] = defaultdict(list)
    planted: Counter[str] = Counter()
    with open(folder / "people.jsonl", "w", encoding="utf-8") as file:
        for number in range(count):
            sentences, carriers = (
                (english, ENGLISH_CARRIERS) if number % 2 else (chinese, CHINESE_CARRIERS)
            )
            texts = list[tuple[str, str]]()
            for _ in range(4):
                head, tail = draw.choice(carriers).split("{}")
                kind = draw.choice(list(PLANTS)) if draw.random() < 0.5 else ""
                value = PLANTS[kind](draw) if kind else look_alike(draw)
                masked = f"<{kind}>" if kind else value
                texts.append((draw.choice(sentences), f"{head}{value}{tail}"))
                wanted[f"d{number}"].append((kind, f"{head}{masked}{tail}"))
                planted[kind] += 1
            parts = [f"{sentence}\n{MARK}\n{text}" for sentence, text in texts]
            row = {"id": f"d{number}", "text": f"\n{MARK}\n".join(parts)}
            file.write(json.dumps(row) + "\n")
    recipe = folder / "people.toml"
    recipe.write_text(
        'held_out_fraction = 0.1\n[[sources]]\nkind = "jsonl"\npath = "people.jsonl"\n'
        '[clean.pii]\naction = "redact"\n[duplicates]\nlines = false\n'
    )
    built = build(recipe, folder / "people")
    hits, false, wrong = Counter[str](), Counter[str](), list[str]()
    for row in rows(built):
        found = row["text"].rstrip("\n").split(f"\n{MARK}\n")[1::2]
        for (kind, want), line in zip(wanted[row["id"]], found, strict=True):
            if line == want:
                hits[kind] += 1
                continue
            wrong.append(f"{kind or 'look-alike'}: {line}")
            for name in re.findall(rf"<({'|'.join(PLANTS)})>", line):
                false[name] += 1
    total, masked = planted.total() - planted[""], hits.total() - hits[""]
    print(f"personal data: {total:,} planted among {planted['']:,} look-alikes in {count:,} texts")
    print(f"  recall {masked / total:.4f}, precision {masked / (masked + false.total()):.4f}")
    for kind in PLANTS:
        right = hits[kind]
        precision = right / max(right + false[kind], 1)
        print(f"  {kind:>9}: recall {right / planted[kind]:.4f}, precision {precision:.4f}")
    for line in wrong[:SHOWN]:
        print(f"    {line}")


# --- evaluation items ------------------------------------------------------------------------


def questions(draw: random.Random, count: int) -> list[dict[str, str]]:
    """Items in English and Chinese: own words in a shared template, with choices."""
    english, chinese = prose(draw)
    found = []
    for number in range(count):
        if number % 2:
            a, b = draw.sample(english, 2)
            words = f"{a} {b}".split()
            draw.shuffle(words)
            asked = " ".join(words[: draw.randint(14, 40)])
            question = f"Question: which of these is true? {asked}"
            answer = " ".join(draw.sample(words, 6))
        else:
            characters = list("".join(draw.sample(chinese, 2)))
            draw.shuffle(characters)
            question = "下列说法哪一个是正确的？" + "".join(characters[: draw.randint(20, 60)])
            answer = "".join(draw.sample(characters, 8))
        found.append({"question": question, "answer": answer})
    return found


def disguised(text: str, draw: random.Random) -> str:
    """As leaks look: other case, other line breaks, other marks."""
    form = draw.randrange(4)
    if form == 0:
        return text.upper()
    if form == 1:
        return re.sub(r"[ ，]", "\n", text)
    if form == 2:
        return text.replace(".", " .").replace("？", "? ").replace(" ", "  ")
    return text


def edited(text: str, draw: random.Random) -> str:
    """One word or ideograph in the middle third is another."""
    words = text.split(" ") if " " in text[20:] else list(text)
    at = draw.randrange(len(words) // 3, 2 * len(words) // 3)
    words[at] = "zebra" if len(words[at]) > 1 else "象"
    return (" " if " " in text[20:] else "").join(words)


def leaks(folder: Path, count: int) -> None:
    draw = random.Random(31)
    items = questions(draw, count)
    tasks = {"hidden": items[::4], "edited": items[1::4], "held_back": items[2::4] + items[3::4]}
    for name, own in tasks.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in own))
    leaked = [(disguised(item["question"], draw), item) for item in tasks["hidden"]]
    leaked += [(edited(item["question"], draw), item) for item in tasks["edited"]]
    english, chinese = prose(draw)
    with open(folder / "web.jsonl", "w", encoding="utf-8") as file:
        for number in range(3 * len(leaked)):
            sentences = draw.sample(draw.choice((english, chinese)), 30)
            if number % 3 == 0:
                text, item = leaked[number // 3]
                answer = f"\n{item['answer']}" if draw.random() < 0.5 else ""
                sentences.insert(draw.randrange(30), f"{text}{answer}")
            file.write(json.dumps({"text": "\n".join(sentences)}) + "\n")
    recipe = folder / "web.toml"
    tables = "".join(f'[[decontaminate.tasks]]\npath = "{name}.jsonl"\n' for name in tasks)
    recipe.write_text(
        'held_out_fraction = 0.1\n[[sources]]\nkind = "jsonl"\npath = "web.jsonl"\n'
        f'[duplicates]\nlines = false\n[decontaminate]\naction = "cut"\n{tables}'
    )
    built = build(recipe, folder / "web")
    report: dict[str, Any] = json.loads((built.directory / "contamination.json").read_text())
    for name, found in report["tasks"].items():
        print(f"evaluation items, {name}: {found['contaminated']} of {found['items']} flagged")
    kept = "".join(row["text"] for row in rows(built))
    left = sum(text in kept for text, _ in leaked)
    print(f"  {left} of the leaked texts stand in the corpus")


def build(recipe: Path, out: Path) -> corpus.Corpus:
    """By the public command."""
    code = isoflop(["data", "build", str(recipe), "-o", str(out), "--placement", "inline"])
    if code:
        raise SystemExit(code)
    return corpus.inspect(out)


def rows(built: corpus.Corpus) -> list[dict[str, str]]:
    return [
        row
        for split in ("train", "held_out")
        for table in built.row_groups(split, ["id", "text"])
        for row in table.to_pylist()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--items", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        personal_data(Path(name), arguments.documents)
        leaks(Path(name), arguments.items)


if __name__ == "__main__":
    main()
