"""Score a folder of Parquet files with Ray Data, on two processes.

Run it with `python examples/score_ray.py MODEL INPUT OUTPUT`; the predictions are those of
`cylstm score MODEL INPUT OUTPUT`, bit for bit.
"""

import argparse

import ray

import cylstm


def score(model, source, target, workers=2, block_rows=8192, **options):
    """Score files of a sequence a row, a worker so many rows at a time.

    `options` are those of `cylstm.Scorer`.
    """
    rows = ray.data.read_parquet(source).repartition(target_num_rows_per_block=block_rows)
    scored = rows.map_batches(
        cylstm.Scorer,  # made once in each worker, which then keeps the model
        fn_constructor_args=(model,),
        fn_constructor_kwargs=options,
        batch_format="pyarrow",
        batch_size=block_rows,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    scored.write_parquet(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--block-rows", type=int, default=8192)
    given = parser.parse_args()
    ray.init(num_cpus=given.workers + 1, include_dashboard=False)  # one to read and to write
    score(given.model, given.source, given.target, given.workers, given.block_rows)


if __name__ == "__main__":
    main()
