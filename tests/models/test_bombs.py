"""A response or a file that unpacks to far more than it weighs costs neither the memory nor the run."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import ROOT, as_arguments, child_environment
from tests.loopback import LoopbackServer, behaviours
from tests.loopback.fixtures import loopback  # noqa: F401 - a fixture

MEGABYTES_ALLOWED = 300


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A gigabyte of spaces, in a megabyte of gzip."""
    packer = zlib.compressobj(wbits=31)
    spaces = b" " * 1_000_000
    return b"".join(packer.compress(spaces) for _ in range(1000)) + packer.flush()


READING = """
import json, sys
from pathlib import Path
import pyarrow.parquet
from pipeline.errors import InputError
from pipeline.sources.readers.parquet_rows import rows
from tests.memory import peak_mb

before, told = peak_mb(), "read"
try:
    for number, row in rows(Path(sys.argv[1]), 10_000_000):
        pass
except InputError as error:
    told = str(error)
print(json.dumps([peak_mb() - before, told]))
"""


@pytest.mark.parametrize("kind", ["one value in every row", pytest.param("one page", marks=pytest.mark.slow)])
def test_a_row_group_is_read_in_slices_or_refused(tmp_path: Path, kind: str) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "bomb.parquet"
    if kind == "one page":
        # Random digits weigh half of what they are; the rest of the page is nothing.
        noise = np.random.default_rng(0).integers(0, 10, 4_000_000).astype("U1")
        texts = ["".join(noise), " " * 290_000_000]
        pq.write_table(pa.table({"prompt": texts}), path, compression="zstd", use_dictionary=False)
    else:
        values = [f"{n}" * 900_000 for n in range(8)]
        index = pa.array([0] * 2000, pa.int32())
        columns = {value[0]: pa.DictionaryArray.from_arrays(index, pa.array([value])) for value in values}
        pq.write_table(pa.table(columns), path, compression="zstd")
    command = [sys.executable, "-c", READING, str(path)]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=True)
    grown, told = json.loads(done.stdout)
    assert grown < MEGABYTES_ALLOWED, (grown, told)
    assert told == "read" if kind != "one page" else "refused" in told


BUILDING = """
import json, sys
from pipeline.cli.main import main
from tests.memory import peak_mb
code = main(sys.argv[1:])
print(json.dumps([peak_mb(), code]))
"""


def test_a_response_is_cut_off_while_it_is_read(
    loopback: Callable[..., LoopbackServer],  # noqa: F811
    settings: Callable[..., Any],
    bomb: bytes,
) -> None:
    bombs = 0

    @web.middleware
    async def explode(http: web.Request, handler: Any) -> web.StreamResponse:
        nonlocal bombs
        if not bombs or not http.path.endswith("/chat/completions"):
            return await handler(http)  # type: ignore[no-any-return]
        bombs += 1
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})

    def build(out: str) -> tuple[float, int, str]:
        config = settings(out, source__limit=8, policy__attempts=1, **models)
        command = [sys.executable, "-c", BUILDING, "build", *as_arguments(config), "--prefect", "off"]
        done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
        peak, code = json.loads(done.stdout.splitlines()[-1])
        return peak, code, done.stderr

    server = loopback(behaviours.pipeline, extensions=[lambda app, engine: app.middlewares.append(explode)])
    models = {f"{role}__model": f"openai/{role}@{server.openai_url}" for role in ("policy", "reviser")}
    own, code, errors = build("calm")
    assert code == 0, errors
    # The role's first answers are its probe's: the run ends there.
    bombs = 1
    peak, code, errors = build("bombed")
    assert bombs > 1 and code == 2 and peak - own < MEGABYTES_ALLOWED, (bombs, code, peak, own, errors)
    assert "a response of more than 8,000,000 bytes" in errors and "Traceback" not in errors
