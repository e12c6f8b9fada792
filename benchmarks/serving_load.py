"""Does a server leak, lose or cross answers under load, and how evenly do tokens come?

    python benchmarks/serving_load.py MODEL [--minutes 5] [--clients 64]

Starts `isoflop serve MODEL` as a process of its own and lets clients stream from it at once, each
again and again: of ten visits about six read to the end, two leave midway, one reads slowly, and
one sends a body that is too large. Answers read to the end are compared with those that the same
prompts and seeds got alone, before. Prints what was lost or crossed, the memory held after, the
server's resident memory over time, the median and 99th percentile of the time between tokens of
fast readers, and the server's promises beside what it measured. Exits with 1 where something is
lost, crossed or kept. Linux only. Not for how fast one client is served (serving_speed.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from isoflop.core.ledger import Ledger

PROMPTS = (
    "The module ",
    "def read_lines(path):\n",
    "Question: Tom has 7 apples",
    "问题：小明有7个苹果",
)
SEEDS, NEW = 8, 48
SAMPLE_SECONDS = 5.0


@dataclass
class Seen:
    """What the clients saw."""

    whole: int = 0
    left: int = 0
    slow: int = 0
    refused: int = 0
    """Bodies that were too large, answered with 413."""
    busy: int = 0
    wrong: list[str] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)


def asked(number: int) -> dict[str, object]:
    return {
        "prompt": PROMPTS[number % len(PROMPTS)], "seed": number, "max_tokens": NEW,
        "temperature": 1.0, "ignore_eos": True,
    }  # fmt: skip


async def post(host: str, port: int, body: bytes) -> tuple[asyncio.StreamReader, object, int]:
    """A request; the reader after the headers, the writer, and the status."""
    reader, writer = await asyncio.open_connection(host, port)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode())
    try:
        writer.write(body)
        await writer.drain()
        status = int((await reader.readuntil(b"\r\n")).split()[1])
        await reader.readuntil(b"\r\n\r\n")
    except (ConnectionError, asyncio.IncompleteReadError):
        return reader, writer, 0  # closed on us while we were still sending
    return reader, writer, status


async def visit(host: str, port: int, draw: random.Random, alone: list[str], seen: Seen) -> None:
    kind = draw.choices(["whole", "leaves", "slow", "large"], [6, 2, 1, 1])[0]
    if kind == "large":
        _, writer, status = await post(host, port, b'{"prompt": "' + b"a" * 1_200_000 + b'"}')
        writer.close()  # type: ignore[attr-defined]
        if status in (0, 413):
            seen.refused += 1
        else:
            seen.wrong.append(f"a body too large got {status}")
        return
    number = draw.randrange(len(alone))
    body = json.dumps({**asked(number), "stream": True}).encode()
    began = time.perf_counter()
    reader, writer, status = await post(host, port, body)
    try:
        if status == 429:
            seen.busy += 1
            await asyncio.sleep(1)
            return
        if status != 200:
            seen.wrong.append(f"status {status}")
            return
        text, done, last = "", False, None
        gives_up = draw.randrange(1, NEW) if kind == "leaves" else None
        pieces = 0
        async for line in reader:
            if not line.startswith(b"data: "):
                continue
            now = time.perf_counter()
            if line.startswith(b"data: [DONE]"):
                done = True
                break
            text += json.loads(line[6:])["choices"][0]["text"]
            pieces += 1
            if kind == "slow":
                await asyncio.sleep(draw.choice([0.0, 0.05, 0.2]))
            elif last is None:
                seen.first.append(now - began)
            else:
                seen.between.append(now - last)
            last = now
            if pieces == gives_up:
                seen.left += 1
                return
        if not done:
            seen.wrong.append("lost: a stream ended without [DONE]")
        elif text != alone[number]:
            seen.wrong.append(f"crossed: answer {number} is not what it is alone")
        elif kind == "slow":
            seen.slow += 1
        else:
            seen.whole += 1
    finally:
        writer.close()  # type: ignore[attr-defined]


async def load(
    host: str, port: int, clients: int, seconds: float, alone: list[str], process: int
) -> Seen:
    seen = Seen()
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < end:
            await visit(host, port, draw, alone, seen)

    async def watch() -> None:
        while time.monotonic() < end:
            seen.rss.append(resident(process))
            await asyncio.sleep(SAMPLE_SECONDS)

    await asyncio.gather(watch(), *(client(number) for number in range(clients)))
    return seen


def resident(process: int) -> int:
    """Resident bytes of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return 0 if found is None else 1024 * int(found[1])


def fetch(address: str, body: object = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return str(reply.read().decode())


def held_after(address: str) -> dict[str, float]:
    """What the engine still holds, once it has had a moment."""
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    for _ in range(100):
        text = fetch(f"{address}/metrics")
        found = {n: float(re.search(rf"isoflop:{n}\{{.*\}} (\S+)", text)[1]) for n in names}  # type: ignore[index]
        if not any(found.values()):
            break
        time.sleep(0.1)
    return found


def page(seen: Seen, held: dict[str, float], minutes: float, clients: int) -> None:
    mib = [round(each / 2**20) for each in seen.rss]
    curve = [mib[round(i * (len(mib) - 1) / 10)] for i in range(11)]
    print(f"{clients} clients for {minutes:g} minutes: {seen.whole} answers read to the end,")
    print(f"{seen.slow} read slowly, {seen.left} left midway, {seen.refused} bodies refused,")
    print(f"{seen.busy} sent away with 429")
    print(f"lost or crossed: {len(seen.wrong)} {sorted(set(seen.wrong))[:5]}")
    print("held after: " + ", ".join(f"{name} {value:g}" for name, value in held.items()))
    print(f"resident MiB, start to end: {' '.join(map(str, curve))}")
    between, first = sorted(seen.between), sorted(seen.first)
    median, p99 = statistics.median(between), between[int(0.99 * len(between))]
    print(
        f"between tokens: median {1000 * median:.1f} ms, p99 {1000 * p99:.1f} ms "
        f"({p99 / median:.1f} times), over {len(between):,} tokens"
    )
    print(f"first token (the wait for a turn included): median {statistics.median(first):.2f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--token-budget", type=int, default=256)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.jsonl"
        command = [
            sys.executable, "-m", "isoflop", "serve", str(given.model), "--port", "0", "--json",
            "--ledger", str(ledger), "--token-budget", str(given.token_budget),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if process.stdout is None:
            raise RuntimeError("no stdout")
        try:
            said = ""
            while not said.endswith("\n}\n"):  # the one document, indented
                said += process.stdout.readline()
            address = json.loads(said)["address"]
            host, port = address.removeprefix("http://").split(":")
            count = len(PROMPTS) * SEEDS
            alone = [
                json.loads(fetch(f"{address}/v1/completions", asked(number)))["choices"][0]["text"]
                for number in range(count)
            ]
            seconds = 60 * given.minutes
            seen = asyncio.run(load(host, int(port), given.clients, seconds, alone, process.pid))
            held = held_after(address)
            page(seen, held, given.minutes, given.clients)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(120)
        print(
            f"exit code after SIGTERM: {code}\n\n| promised before | value | interval | measured |"
        )
        print("|---|---|---|---|")
        for promise in Ledger(ledger).read():
            outcome = "not seen" if promise.outcome is None else f"{promise.outcome:.4g}"
            verdict = {True: ", held", False: ", broken", None: ""}[promise.held]
            interval = f"{promise.low:.4g} to {promise.high:.4g}"
            what = f"{promise.quantity}, {promise.unit}"
            print(f"| {what} | {promise.value:.4g} | {interval} | {outcome}{verdict} |")
    return 1 if seen.wrong or any(held.values()) or code else 0


if __name__ == "__main__":
    sys.exit(main())
