"""Score a text of many lines with Spark: a model pickles by its bytes, so it is broadcast.

spark-submit spark_scores.py MODEL.onnx LINES.txt FOLDER
"""

import sys
from collections.abc import Iterator

import pandas as pd
from pyspark.sql import SparkSession

import chargen_ort

SCHEMA = "text string, log_probability double, bits_per_char double, percentile double"


def main(model: str, source: str, folder: str) -> None:
    """Write Parquet files of the lines of `source`, which may be a folder, and their figures."""
    spark = SparkSession.builder.appName("scores").getOrCreate()
    # opened once in each Python worker, which Spark keeps for all partitions that it gets
    shared = spark.sparkContext.broadcast(chargen_ort.load(model, threads=1))

    def score(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for lines in batches:
            scores = list(shared.value.iterate_scores(lines["value"]))
            yield pd.DataFrame(
                {
                    "text": lines["value"],
                    "log_probability": [score.total for score in scores],
                    "bits_per_char": [score.bits_per_char for score in scores],
                    "percentile": [score.percentile for score in scores],
                }
            )

    lines = spark.read.text(source, lineSep="\n")
    lines.mapInPandas(score, SCHEMA).write.mode("overwrite").parquet(folder)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
