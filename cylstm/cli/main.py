"""The command line: what there is to say, and what becomes of errors."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

__all__ = ["main"]

DONE, FAILED, USAGE, SKIPPED, STOPPED = 0, 1, 2, 3, 130

_TOLD = (  # what is said in a line; anything else is a fault of ours, and shows where it is
    ImportError, LookupError, MemoryError, NotImplementedError, OSError, TypeError, ValueError,
)  # fmt: skip

_CODES = """\
exit status:
  0    done
  1    failed: one line on standard error says why
  2    the command was not understood
  130  stopped by Ctrl-C
"""
_SCORE_CODES = """\
exit status:
  0    done
  1    failed: one line on standard error says why; the same command goes on where it can
  2    the command was not understood
  3    done, with sequences skipped (--on-error skip)
  130  stopped by Ctrl-C, at a whole file; the same command goes on
"""
_MAIN = """\
Run LSTMs on the CPU: score files of sequences, look into models, convert and time them.

  cylstm info tagger.safetensors                                   what is in it
  cylstm score tagger.safetensors posts.parquet scored --dry-run   what would be done
  cylstm score tagger.safetensors posts.parquet scored             predictions in scored/

A model is a file of cylstm (.safetensors), PyTorch (.pt), Keras (.keras, .h5) or ONNX (.onnx).
`cylstm COMMAND --help` tells what each command takes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    given = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = lambda text, *_: _say(given.command, f"warning: {_one_line(text)}")
        return _run(given)


def _run(given: argparse.Namespace) -> int:
    try:
        return import_module(f"cylstm.cli.{given.command}").run(given)
    except KeyboardInterrupt:
        _say(
            given.command,
            "stopped" + "; the same command goes on from here" * (given.command == "score"),
        )
        return STOPPED
    except BrokenPipeError:  # of `| head`
        return FAILED
    except _TOLD as error:
        _say(given.command, _one_line(error))
        return FAILED


def _say(command: str, text: str) -> None:
    print(f"cylstm {command}: {text}", file=sys.stderr)


def _one_line(error: BaseException | str) -> str:
    """Return what an error says, in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(str(text).split()) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cylstm",
        description=_MAIN,
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cylstm {version('cylstm')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_score(commands)
    _add_info(commands)
    _add_convert(commands)
    _add_bench(commands)
    return parser


_SCORE = """\
Score files of sequences into a folder of Parquet files.

INPUT is a Parquet, Arrow IPC or CSV file, a folder of such files, or a glob; its rows are
either whole sequences, in list columns, or with --by the steps of sequences:

  cylstm score tagger.safetensors posts.parquet scored --features tokens
  cylstm score model.onnx 'logs/*.parquet' scored --by id --order time --features a,b,c

OUTPUT gets part-000000.parquet and so on: the key columns, and `prediction`. Try --dry-run
first: it shows the columns, the shapes and the first predictions, and writes nothing.

Killed at any moment and started again, the command goes on, to the same bytes."""


def _add_score(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "score", "score files of sequences", _SCORE, _SCORE_CODES)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a file of cylstm, Keras or ONNX; of PyTorch its LSTM alone is read",
    )
    parser.add_argument("source", metavar="INPUT", nargs="+", help="files, a folder or a glob")
    parser.add_argument("target", metavar="OUTPUT", help="a folder: new, or of the same job before")
    data = parser.add_argument_group("the data")
    data.add_argument(
        "--features",
        type=_names,
        metavar="A,B",
        help="what the model reads: a column of lists (default: the only one), several, or with "
        "--by a column for each feature, or of tokens",
    )
    data.add_argument(
        "--by",
        type=_names,
        metavar="A,B",
        help="rows with the same values there "
        "are the steps of one sequence; they must follow each other",
    )
    data.add_argument(
        "--order",
        metavar="A",
        help="with --by: put a sequence's steps in the order of this column (default: of the rows)",
    )
    data.add_argument(
        "--keys",
        type=_names,
        metavar="A,B",
        help="columns that go on to the output (default: --by and --order; else all plain columns)",
    )
    _add_axes(data)
    result = parser.add_argument_group("the output")
    result.add_argument(
        "--output",
        choices=("raw", "probabilities", "argmax", "state"),
        default="raw",
        help="what is kept of the model's output (default: raw)",
    )
    result.add_argument(
        "--steps",
        choices=("all", "last"),
        help="a prediction for each step, or "
        "of the last step alone (default: all, if the model has them)",
    )
    result.add_argument(
        "--labels",
        metavar="FILE",
        help="with --output argmax: a text file with a label a line, or a JSON list",
    )
    result.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="at a null, "
        "empty or unknown thing: stop and name it (default), or leave the sequence "
        "out and note it in OUTPUT/_skipped",
    )
    result.add_argument(
        "--part-rows",
        type=int,
        default=65_536,
        metavar="N",
        help="sequences in a file of the output, at most (default: 65536)",
    )
    result.add_argument("--limit", type=int, metavar="N", help="score the first N sequences alone")
    how = parser.add_argument_group("how it runs (the output is the same)")
    how.add_argument(
        "--memory", default="2GB", metavar="SIZE", help="stay within it (default: 2GB)"
    )
    how.add_argument(
        "--threads", type=int, metavar="N", help="default: as OMP_NUM_THREADS says, else all CPUs"
    )
    how.add_argument(
        "--batch-tokens", type=int, metavar="N", help="steps in a batch, at most (default: 4096)"
    )
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="read the columns and a few rows, print shapes and the plan, and write nothing",
    )
    how.add_argument("--json", action="store_true", help="print the summary as JSON")
    how.add_argument("--quiet", action="store_true", help="show no progress")


def _add_info(commands: argparse._SubParsersAction) -> None:
    text = "Tell what is in a model's file, or why it cannot be read."
    parser = _command(commands, "info", "tell what is in a model's file", text)
    parser.add_argument("file", metavar="FILE", help="a file of cylstm, PyTorch, Keras or ONNX")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


_CONVERT = """\
Write a model in another format, which the ending of OUT tells:

  .safetensors  cylstm's own, which cylstm.load opens
  .onnx         ONNX
  .pt           a state dict of PyTorch's, where PyTorch is installed"""


def _add_convert(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "convert", "write a model in another format", _CONVERT)
    parser.add_argument("file", metavar="IN", help="a file of cylstm, PyTorch, Keras or ONNX")
    parser.add_argument("target", metavar="OUT", help="the file to write; one there is replaced")
    parser.add_argument(
        "--lstm",
        metavar="NAME",
        nargs="?",
        const="",
        help="take the file's LSTM alone; NAME says which of several",
    )
    _add_axes(parser)
    parser.add_argument(
        "--quantize",
        choices=("int8", "bfloat16"),
        help="keep weights in fewer bits (.safetensors alone)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="keep an input and its output, by which the file is tested when it is opened "
        "(.safetensors alone)",
    )


def _add_bench(commands: argparse._SubParsersAction) -> None:
    text = (
        "Time a model on this machine: steps of a stream, sequences and batches; and tell which\n"
        "share that is of the machine's limit, by arithmetic or by reading the weights."
    )
    parser = _command(commands, "bench", "time a model on this machine", text)
    parser.add_argument("file", metavar="FILE", help="a file of cylstm, PyTorch, Keras or ONNX")
    parser.add_argument(
        "--steps", type=int, default=100, metavar="T", help="steps of a sequence (default: 100)"
    )
    parser.add_argument(
        "--batches",
        type=_numbers,
        default=(1, 32),
        metavar="N,N",
        help="numbers of sequences (default: 1,32)",
    )
    parser.add_argument(
        "--threads", type=_numbers, metavar="N,N", help="numbers of threads (default: 1, and all)"
    )
    _add_axes(parser)
    parser.add_argument("--json", action="store_true", help="print the times as JSON")


def _add_axes(parser: argparse._ActionsContainer) -> None:
    axes = parser.add_mutually_exclusive_group()
    axes.add_argument(
        "--batch-first",
        action="store_true",
        default=None,
        dest="batch_first",
        help="the model takes (sequences, steps); needed where it does not tell",
    )
    axes.add_argument(
        "--time-first",
        action="store_false",
        default=None,
        dest="batch_first",
        help="the model takes (steps, sequences)",
    )


def _command(
    commands: argparse._SubParsersAction, name: str, short: str, text: str, codes: str = _CODES
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=short,
        description=text,
        epilog=codes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(number) for number in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers such as 1,32, got {text!r}")
    return found
