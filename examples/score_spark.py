"""Score a folder of Parquet files with Spark, on two local workers.

Run it with `python examples/score_spark.py MODEL INPUT OUTPUT`; the predictions are those of
`cylstm score MODEL INPUT OUTPUT`, bit for bit.
"""

import argparse

from pyspark.sql import SparkSession

import cylstm


def score(spark, model, source, target, schema="id long, prediction array<float>", **options):
    """Score files of a sequence a row, to columns of this schema.

    `options` are those of `cylstm.Scorer`.
    """
    # It loads its model once in each worker. Spark knows no lists of fixed size.
    scorer = cylstm.Scorer(model, fixed_size=False, **options)

    def scored(batches):
        for batch in batches:
            yield scorer(batch)

    spark.read.parquet(source).mapInArrow(scored, schema).write.parquet(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("source")
    parser.add_argument("target")
    given = parser.parse_args()
    session = SparkSession.builder.master("local[2]").appName("cylstm")
    with session.config("spark.ui.enabled", "false").getOrCreate() as spark:
        score(spark, given.model, given.source, given.target)


if __name__ == "__main__":
    main()
