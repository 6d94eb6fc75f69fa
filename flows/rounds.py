"""Rounds as a Prefect flow: curate, train, serve, and curate again, each curation a run of its own flow."""

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.curate import curate
from pipeline.config.settings import CurationConfig
from pipeline.dataset.reader import read_manifest
from pipeline.training.rounds import SERVE, run_rounds


@flow(name="rounds", flow_run_name="rounds-{count}", persist_result=False)
def rounds(
    config: CurationConfig, model: str, count: int = 2, train: list[str] | None = None, serve: str = SERVE
) -> list[dict[str, Any]]:
    """Sample from a model, train it on the pairs, and sample again from what it became. Returns the figures of each round.

    Args:
        config: Of every round; its output folder holds all of them, and the round's model stands in for its policy's
        model: Folder or Hub id of the model to begin with, or an embedded one, as local/smollm2-135m-instruct
        count: Of rounds; the last one trains nothing
        train: More of `figa train`, such as --epochs=3
        serve: Command that serves {model} at {port} as OpenAI does
    """

    def one(settings: CurationConfig) -> dict[str, Any]:
        curate(settings)
        return read_manifest(settings.out)

    figures = list(run_rounds(config, model, count, one, train=train or [], serve=serve))
    create_table_artifact(figures, key="figa-rounds", description="What changed from round to round")
    return figures
