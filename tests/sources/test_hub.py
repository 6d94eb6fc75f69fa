"""The Hub path, through the real `huggingface_hub` and `datasets`, against a loopback server.

HF_ENDPOINT is read when those libraries are imported, so each case runs in a child process.
"""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources.hub_server import SHA, Hub

CHILD = """
import json, sys
from pipeline import errors, sources
from pipeline.config.settings import SourceSettings
arguments = json.loads(sys.argv[1])
try:
    source = sources.resolve_source(SourceSettings(**arguments), lambda text: print("WARN", text))
    fields = ("resolved", "location", "revision", "split", "licence", "digest")
    print("SOURCE", json.dumps([getattr(source, field) for field in fields]))
    for record in sources.records(source):
        print("ROW", json.dumps([record.source_row, record.where, record.split, record.value]))
except errors.InputError as error:
    print("ERROR", error)
"""


def jsonl(name, count):
    rows = (
        {"chosen": f"\n\nHuman: {name} {n}\n\nAssistant: good", "rejected": f"\n\nHuman: {name} {n}\n\nAssistant: bad"}
        for n in range(count)
    )
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


FILES = {
    "README.md": b"---\nlicense: mit\n---\n# HH\n",
    "harmless-base/test.jsonl.gz": jsonl("harmless test", 20),
    "harmless-base/train.jsonl.gz": jsonl("harmless", 30),
    "helpful-base/train.jsonl.gz": jsonl("helpful", 40),
    "red-team-attempts/red_team_attempts.jsonl.gz": gzip.compress(b'{"other": 1}\n'),
}


def run(tmp_path, url, **arguments):
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path), "NO_PROXY": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(arguments)],
        cwd=Path(__file__).parents[2],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, list[str]] = {"WARN": [], "SOURCE": [], "ROW": [], "ERROR": []}
    for line in done.stdout.splitlines():
        kind, _, text = line.partition(" ")
        said[kind].append(text)
    return said


def test_the_default_source_is_pinned_and_streamed(tmp_path):
    with Hub("Anthropic/hh-rlhf", FILES) as hub:
        said = run(tmp_path, hub.url, name="hh-rlhf")
        resolved, location, revision, split, licence, digest = json.loads(said["SOURCE"][0])
        assert (resolved, location, revision, split, licence) == ("hub", "Anthropic/hh-rlhf", SHA, "train", "mit")
        assert len(digest) == 64 and not said["WARN"]
        rows = [json.loads(line) for line in said["ROW"]]
        assert [row[0] for row in rows] == list(range(70))
        assert rows[0][1:3] == [f"Anthropic/hh-rlhf@{SHA[:12]}:train:1", "train"]
        assert rows[0][3]["chosen"] == "\n\nHuman: harmless 0\n\nAssistant: good"
        assert all("/resolve/main/" not in request for request in hub.requests)


def test_the_one_file_of_a_data_set_is_read_by_blocks(tmp_path):
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]
    rows = [{"id": f"{n}_0", "conversations": talk} for n in range(20)]
    files = {"ShareGPT_V3_unfiltered_cleaned_split.json": json.dumps(rows).encode(), "old/part.json": b"[{}]"}
    with Hub("anon8231489123/ShareGPT_Vicuna_unfiltered", files) as hub:
        said = run(tmp_path, hub.url, name="sharegpt")
        read = [json.loads(row) for row in said["ROW"]]
        assert [row[3] for row in read] == rows and json.loads(said["SOURCE"][0])[2] == SHA
        assert read[6][1] == f"anon8231489123/ShareGPT_Vicuna_unfiltered@{SHA[:12]}:train:7"
        assert f"GET /datasets/{hub.repo}/resolve/{SHA}/{next(iter(files))}" in hub.requests


def test_a_hub_id_as_input_with_another_split(tmp_path):
    with Hub("someone/data", FILES) as hub:
        said = run(tmp_path, hub.url, name="hh-rlhf", input="someone/data", split="test", revision="main")
        assert (len(said["ROW"]), json.loads(said["SOURCE"][0])[2:4]) == (20, [SHA, "test"])


def test_a_revision_may_stand_in_the_input(tmp_path):
    with Hub("someone/data", FILES) as hub:
        said = run(
            tmp_path, hub.url, name="hh-rlhf,hh-rlhf", input="someone/data@main, someone/data@main", split="test"
        )
        assert [row[0] for row in map(json.loads, said["ROW"])].count(19) == 2 and len(said["ROW"]) == 40


@pytest.mark.parametrize(
    ("arguments", "gated", "expected"),
    [
        ({"input": "someone/else"}, False, "no Hub data set someone/else"),
        ({"input": "someone/data"}, True, "is gated"),
        ({"input": "someone/data", "revision": "v9"}, False, "no revision 'v9'"),
        ({"input": "someone/data", "split": "nope"}, False, "split 'nope'"),
    ],
)
def test_what_the_hub_refuses_is_one_clear_line(tmp_path, arguments, gated, expected):
    with Hub("someone/data", FILES, gated=gated) as hub:
        said = run(tmp_path, hub.url, name="hh-rlhf", **arguments)
    assert len(said["ERROR"]) == 1 and expected in said["ERROR"][0] and not said["ROW"]


def test_a_hub_that_is_gone_gives_the_sample_or_an_error(tmp_path):
    with Hub("x/y", {}) as hub:
        url = hub.url
    said = run(tmp_path, url, name="hh-rlhf")
    assert json.loads(said["SOURCE"][0])[0] == "bundled-sample" and len(said["WARN"]) == 1
    said = run(tmp_path, url, name="hh-rlhf", require_full=True)
    assert "full source is required" in said["ERROR"][0] and not said["ROW"]
