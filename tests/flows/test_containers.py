"""The Dockerfile, linted where hadolint is installed, and the work pools that prefect.yaml holds as comments."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import prefect
import pytest
import yaml

from pipeline import __version__
from tests.conftest import ROOT

_WORKERS = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"


def variant(kind: str) -> dict[str, Any]:
    """A commented work pool of prefect.yaml, as if it were none."""
    text = (ROOT / "prefect.yaml").read_text("utf-8")
    found = re.search(rf"^  # {kind}: .*\n((?:  #   .*\n)+)", text, re.MULTILINE)
    assert found, kind
    pool = yaml.safe_load(found[1].replace("  #   ", ""))["work_pool"]
    # The whole file still loads with it.
    current = "  work_pool: &pool\n    name: figa\n"
    assert current in text
    replaced = yaml.safe_load(text.replace(current, found[1].replace("  #   ", "  ")))
    assert all(each["work_pool"] == pool for each in replaced["deployments"])
    return pool  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_work_pools_of_containers_name_variables_that_their_workers_have(kind: str) -> None:
    workers = json.loads(_WORKERS.read_text("utf-8"))[f"prefect-{kind}"][kind]
    schema = workers["default_base_job_configuration"]["variables"]
    variables = variant(kind)["job_variables"]
    assert set(variables) <= set(schema["properties"])
    jsonschema.validate(variables, schema)
    assert variables["image"] in ("figa-pipeline", f"registry.example/figa-pipeline:{__version__}")


def test_the_image_has_what_a_run_needs_and_is_nobodys_root() -> None:
    steps = (ROOT / "Dockerfile").read_text("utf-8")
    assert re.search(r"^USER 1000$", steps, re.MULTILINE) and "VOLUME /models" in steps and "EXTRAS=local\n" in steps
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    named = re.findall(r'^"([^"]+)" = "pipeline/_', project, re.MULTILINE)
    named += json.loads(re.findall(r"^packages = (.*)$", project, re.MULTILINE)[0])
    assert {name.partition("/")[0] for name in named} <= sent and {"pyproject.toml", "README.md", "LICENSE"} <= sent


def test_the_dockerfile_has_no_findings() -> None:
    if not (linter := shutil.which("hadolint")):
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
