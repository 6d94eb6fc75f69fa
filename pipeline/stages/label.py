"""Label: give every response token of both sequences an operation and a signed weight."""

import pyarrow as pa

from pipeline.config.settings import LabelSettings
from pipeline.labels.columns import label_columns
from pipeline.models.chat import OnProgress
from pipeline.storage.stage_files import StageOutput


def label(rows: pa.Table, settings: LabelSettings, eos_id: int, on_progress: OnProgress) -> StageOutput:
    """Replaces words by label, weight and operation columns. Rejects: no_reward_gain, for reward_weighted alone."""
    output = label_columns(rows, settings, eos_id)
    on_progress(rows.num_rows, len(output.rejects))
    return output
