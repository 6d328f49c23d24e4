"""Score a folder of Parquet files with Dask, on two processes.

Run it with `python examples/score_dask.py MODEL INPUT OUTPUT`; the predictions are those of
`cylstm score MODEL INPUT OUTPUT`, bit for bit.
"""

import argparse

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa

import cylstm


def score(model, source, target, width, **options):
    """Score files of rows of `id` and a list column, to `width` numbers a row.

    `options` are those of `cylstm.Scorer`.
    """
    scorer = cylstm.Scorer(model, **options)  # loads its model in each process that calls it
    kinds = {"id": pa.int64(), "prediction": pa.list_(pa.float32(), width)}
    columns = {name: pd.Series(dtype=pd.ArrowDtype(kind)) for name, kind in kinds.items()}
    rows = dd.read_parquet(source, dtype_backend="pyarrow")
    scored = rows.map_partitions(scorer, meta=pd.DataFrame(columns))
    scored.to_parquet(target, schema=pa.schema(kinds), write_index=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--width", type=int, required=True, help="numbers of a prediction")
    given = parser.parse_args()
    import dask

    with dask.config.set(scheduler="processes", num_workers=2):
        score(given.model, given.source, given.target, given.width)


if __name__ == "__main__":
    main()
