"""Score a text of many lines with Dask: the model is sent to each worker once, by its bytes.

python dask_scores.py MODEL.onnx LINES.txt FOLDER [SCHEDULER-ADDRESS]
"""

import sys

import dask.dataframe as dd
import pandas as pd
from dask.bag import read_text
from distributed import Client

import chargen_ort

COLUMNS = {
    "text": "string",
    "log_probability": "float64",
    "bits_per_char": "float64",
    "percentile": "float64",
}


def score(lines: list[str], model: chargen_ort.CharGenerator) -> pd.DataFrame:
    """The figures of some lines."""
    texts = [line.removesuffix("\n") for line in lines]
    scores = list(model.iterate_scores(texts))
    figures = {
        "text": texts,
        "log_probability": [score.total for score in scores],
        "bits_per_char": [score.bits_per_char for score in scores],
        "percentile": [score.percentile for score in scores],
    }
    return pd.DataFrame(figures).astype(COLUMNS)


def main(model: str, source: str, folder: str, address: str | None = None) -> None:
    """Write Parquet files of the lines of `source` and their figures."""
    with Client(address) if address else Client(n_workers=2, threads_per_worker=1) as client:
        shared = client.scatter(chargen_ort.load(model, threads=1), broadcast=True)
        parts = read_text(source, blocksize="1MiB", linedelimiter="\n").to_delayed()
        scored = [client.submit(score, client.compute(part), shared) for part in parts]
        dd.from_delayed(scored, meta=score([], chargen_ort.load(model))).to_parquet(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
