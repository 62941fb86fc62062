"""Score a text of many lines with Ray Data: one model for each actor, made from its bytes.

python ray_scores.py MODEL.onnx LINES.txt FOLDER
"""

import sys
from pathlib import Path

import pandas as pd
import ray
from ray.data import ActorPoolStrategy

import chargen_ort


class Scorer:
    """Keeps a model, and adds figures to lines."""

    def __init__(self, data: ray.ObjectRef) -> None:
        self.model = chargen_ort.CharGenerator.from_bytes(ray.get(data), threads=1)

    def __call__(self, lines: pd.DataFrame) -> pd.DataFrame:
        """`lines` has the column ``text``."""
        scores = list(self.model.iterate_scores(lines["text"]))
        return lines.assign(
            log_probability=[score.total for score in scores],
            bits_per_char=[score.bits_per_char for score in scores],
            percentile=pd.array([score.percentile for score in scores], dtype="Float64"),
        )


def main(model: str, source: str, folder: str, actors: int = 16) -> None:
    """Write Parquet files of the lines of `source`, which may be a folder, and their figures."""
    data = ray.put(Path(model).read_bytes())  # sent to a machine once, not to each actor
    lines = ray.data.read_text(source)
    scored = lines.map_batches(
        Scorer,
        fn_constructor_args=(data,),
        batch_format="pandas",
        batch_size=4096,
        compute=ActorPoolStrategy(min_size=1, max_size=actors),  # readers want a core as well
    )
    scored.write_parquet(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
