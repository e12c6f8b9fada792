"""Requests cut off on the way, and where the suite's other faults are proved.

A killed rank, a killed Ray worker and a poisoned batch need the rigs of their own packages; the
table names the tests, and one that is renamed or lost fails here.
"""

from __future__ import annotations

import ast
import json
import random
import re
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "killed rank": (
        "training/parallel/test_launch.py",
        "test_a_rank_killed_in_a_step_is_started_again_and_the_curve_goes_on",
    ),
    "ranks killed in a checkpoint": (
        "training/parallel/test_launch.py",
        "test_ranks_killed_in_a_checkpoint_lose_nothing_and_go_on_in_another_layout",
    ),
    "killed Ray worker": (
        "planning/test_launchers.py",
        "test_a_ray_cluster_that_loses_a_worker_comes_to_the_table_of_this_machine",
    ),
    "killed worker of a data build": (
        "core/engine/test_placement.py",
        "test_the_task_of_a_killed_worker_is_run_again_and_the_others_are_not",
    ),
    "poisoned batch": (
        "training/test_loop.py",
        "test_a_step_that_is_not_finite_is_left_out_and_its_documents_named",
    ),
    "killed with poisoned batches": (
        "training/test_loop.py",
        "test_a_killed_run_with_faults_resumes_to_the_same_bits",
    ),
    "mangled requests": (
        "serving/test_fuzz.py",
        "test_two_thousand_mangled_bodies_are_refused_with_a_reason",
    ),
}
"""Fault → the file and the test that proves it."""


@pytest.mark.parametrize("fault", ELSEWHERE)
def test_the_faults_that_are_proved_elsewhere_still_are(fault: str) -> None:
    file, name = ELSEWHERE[fault]
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


BODY = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "loss"}], "max_tokens": 4}
).encode()
WHOLE = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    b"Content-Length: " + str(len(BODY)).encode() + b"\r\n\r\n" + BODY
)


@pytest.mark.slow
def test_a_server_outlives_requests_that_are_cut_off_anywhere(isoflop: Any, flow: Any) -> None:
    draw = random.Random(3)
    model = flow.root / "sft" / "model"
    with isoflop.start("serve", model, "--port", "0", "--name", "m", "--json") as process:
        said = ""
        while not (found := re.search(r"http://127.0.0.1:(\d+)", said)):
            line = process.stdout.readline()
            assert line, process.communicate()
            said += line
        port = int(found[1])
        for _ in range(40):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as sent:
                sent.sendall(WHOLE[: draw.randrange(len(WHOLE))])
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions", BODY,
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=120) as answer:
            document = json.loads(answer.read())
        assert document["choices"][0]["message"]["role"] == "assistant"
        code, err = process.end(signal.SIGTERM)
    assert code in (0, 130, -signal.SIGTERM)
    assert "Traceback" not in err
