"""`cylstm.score` and `cylstm.Scorer`: what they take, and that pyarrow is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cylstm.checks import is_true_or_false

if TYPE_CHECKING:
    from cylstm.jobs.summary import Summary

__all__ = ["Scorer", "need_pyarrow", "score"]


def need_pyarrow(what: str) -> None:
    """Say what to install where pyarrow is missing."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ImportError(
            f"{what}: expected pyarrow, which is not installed: "
            "python -m pip install 'cylstm[score]'"
        ) from None


def score(
    model: Any,
    source: Any,
    target: Any,
    *,
    features: Any = None,
    by: Any = None,
    order: str | None = None,
    keys: Any = None,
    output: str = "raw",
    steps: str | None = None,
    labels: Any = None,
    on_error: str = "fail",
    limit: int | None = None,
    part_rows: int = 65_536,
    batch_first: bool | None = None,
    memory: Any = "2GB",
    threads: int | None = None,
    batch_tokens: int | None = None,
    progress: bool | None = None,
) -> Summary:
    """Score files of sequences into a folder of Parquet files; killed and called again, go on.

    The rows of the input are either whole sequences, in list columns, or, with `by`, the steps of
    sequences.

    Parameters
    ----------
    model : LSTM, Layer or path-like
        The model, or a file that `cylstm.load` opens.
    source : path-like or list of these
        A Parquet, Arrow IPC or CSV file, a folder of such, a glob, or a list of files. They are
        read in the order of their names (a list's in its own), and must have the same columns.
    target : path-like
        The folder of the output: new, empty, or begun by the same job.
    features : str or list of str, optional
        The columns that the model reads. Without `by` one list column, of tokens or of a step's
        features each, which may be left out if it is the only one; or one list column for each
        feature. With `by` a column of tokens, or one for each feature.
    by : str or list of str, optional
        The columns that tell which sequence a step belongs to. The rows of a sequence must follow
        each other; row groups and files may end within it.
    order : str, optional
        With `by`, the column by which the steps of a sequence are put in order, rising; each value
        once. By default they are in the order of rows.
    keys : str or list of str, optional
        The columns that go on to the output: by default `by`, and `order` where there is a
        prediction for each step; without `by` all columns that are not nested, but the features.
    output : {"raw", "probabilities", "argmax", "state"}
        The model's output; its softmax, or for one number its sigmoid; the place of the largest
        number; or the state (h, c) after the last step.
    steps : {"all", "last"}, optional
        Of which steps, for a model that has an output for each; by default of all.
    labels : list of str, optional
        With "argmax", what is written instead of places.
    on_error : {"fail", "skip"}
        What to do about a sequence that is null or empty, or has a null, a number that is not
        finite, a token that the model does not know, or another number of features. "fail" raises
        `RowError`, which tells where it is; with "skip" a line in ``target/_skipped`` does.
    limit : int, optional
        Score so many sequences, the first.
    part_rows : int
        How many sequences a file of the output has at most; it has fewer if these are long.
    batch_first : bool, optional
        Whether the model takes (N, T, ...), where it does not tell.
    memory : str or int
        How much memory to stay within, such as "2GB". A sequence, or text in a key column, that
        takes more than a few MB is beside that.
    threads : int, optional
        How many batches are scored side by side; `cylstm.get_num_threads` by default.
    batch_tokens : int, optional
        How many steps, with padding, a batch has at most.
    progress : bool, optional
        Whether to show the progress: a bar on a terminal, else lines; by default the bar alone.

    Returns
    -------
    Summary
        How many rows, predictions, skipped sequences, parts and seconds.

    Raises
    ------
    ValueError
        If an argument does not fit the model or the columns; if the target is of another model, of
        other options or of an input that has changed since; or a `RowError`.
    OSError
        If a file cannot be read or written. As after any other end, the same call then goes on.
    ImportError
        If pyarrow is not installed.

    Notes
    -----
    The output's bytes depend on the model, the input and the options, and neither on `memory`,
    `threads`, `progress` nor on interruptions; nor on `batch_tokens`, if all of the model's layers
    are cylstm's own (of Keras's and ONNX's some are NumPy's, so that it belongs to the options; and
    so it does with ``CYLSTM_PRODUCT=blas``).

    Examples
    --------
    >>> import os, tempfile, pyarrow, pyarrow.parquet as parquet
    >>> from cylstm.layers import Embedding, Last, Linear, Sequential
    >>> lstm = cylstm.LSTM(8, 16, seed=0)
    >>> model = Sequential(Embedding(100, 8, seed=0), lstm, Last(), Linear(16, 2, seed=0))
    >>> folder = tempfile.mkdtemp()
    >>> table = pyarrow.table({"id": [7, 8], "tokens": [[3, 1, 4], [15]]})
    >>> parquet.write_table(table, os.path.join(folder, "in.parquet"))
    >>> target = os.path.join(folder, "out")
    >>> summary = cylstm.score(model, os.path.join(folder, "in.parquet"), target)
    >>> summary.predictions, summary.skipped
    (2, 0)
    >>> parquet.read_table(target).column_names
    ['id', 'prediction']
    """
    need_pyarrow("score")
    from cylstm.jobs.options import Options
    from cylstm.jobs.run import Job, Running, run

    options = Options.checked(
        features=features, by=by, order=order, keys=keys, output=output, steps=steps,
        labels=labels, on_error=on_error, limit=limit, part_rows=part_rows,
        batch_first=batch_first,
    )  # fmt: skip
    running = Running(memory, threads, batch_tokens, progress)
    return run(Job(model, source, target, options), running)


class Scorer:
    """A model as a function of tables, for engines that divide data among processes.

    It can be pickled, reads its model once a process, and gives the bytes that `cylstm.score`
    gives. With `by`, a table must have whole groups.

    Parameters
    ----------
    model : LSTM, Layer or path-like
        As of `cylstm.score`; a path must be there for each process.
    features, by, order, keys, output, steps, labels, on_error, batch_first, batch_tokens
        As of `cylstm.score`. With ``on_error="skip"`` a warning tells of sequences left out.
    fixed_size : bool, default True
        Whether the type of predictions of several numbers says how many they are, as in the files
        of `cylstm.score`; if not, they are lists of any size, for engines that know no others.
    threads : int, default 1
        How many batches are scored side by side; engines have processes for the other CPUs.

    Raises
    ------
    ImportError
        If pyarrow is not installed.

    Examples
    --------
    >>> import pyarrow
    >>> scorer = cylstm.Scorer(cylstm.LSTM(1, 2, seed=0), features="x", steps="last")
    >>> table = pyarrow.table({"id": [7, 8], "x": [[0.5, 0.25], [1.0]]})
    >>> scorer(table).column_names
    ['id', 'prediction']
    >>> scorer({"x": np.ones((3, 5))})["prediction"].shape
    (3, 2)
    """

    def __init__(
        self,
        model: Any,
        *,
        features: Any = None,
        by: Any = None,
        order: str | None = None,
        keys: Any = None,
        output: str = "raw",
        steps: str | None = None,
        labels: Any = None,
        on_error: str = "fail",
        batch_first: bool | None = None,
        batch_tokens: int | None = None,
        fixed_size: bool = True,
        threads: int = 1,
    ) -> None:
        need_pyarrow("Scorer")
        from cylstm.jobs.options import Options

        self.model = model
        self._options = Options.checked(
            features=features, by=by, order=order, keys=keys, output=output, steps=steps,
            labels=labels, on_error=on_error, limit=None, part_rows=65_536,
            batch_first=batch_first,
        )  # fmt: skip
        self._threads, self._batch_tokens = threads, batch_tokens
        self._fixed_size = is_true_or_false("fixed_size", fixed_size)
        self._predictor: Any = None

    def __call__(self, data: Any) -> Any:
        """Return the keys and the predictions of sequences, a row each.

        Parameters
        ----------
        data : pyarrow.Table, pyarrow.RecordBatch, pandas.DataFrame or dict of str to array
            In a dict, a list column is an array (N, T) or (N, T, F), or N arrays.

        Returns
        -------
        object of the same kind
            A frame has the index of `data`, if no sequence was left out; in a dict, predictions
            are an array (N, F), or for each step N arrays.
        """
        from cylstm.jobs.scorer import as_given, predictor_of, scored

        if self._predictor is None:
            self._predictor = predictor_of(self.model, self._options.batch_first)
        made = scored(data, self._predictor, self._options, self._threads, self._batch_tokens)
        return as_given(made, data, self._fixed_size)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_predictor": None}

    def __repr__(self) -> str:
        return f"Scorer({self.model!r})"
