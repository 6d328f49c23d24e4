"""The command line: what there is to say, and what becomes of errors."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

__all__ = ["DONE", "SKIPPED", "USAGE", "as_option", "main", "say"]

DONE, FAILED, USAGE, SKIPPED, STOPPED = 0, 1, 2, 3, 130

_TOLD = (  # what is said in a line; anything else is a fault of ours, and shows where it is
    ImportError, LookupError, MemoryError, NotImplementedError, OSError, TypeError, ValueError,
)  # fmt: skip

_POSITIONAL = {"model": "MODEL", "source": "INPUT", "target": "OUTPUT"}
_SAID = {  # of arguments within errors
    "`by`": "--by",
    "output='argmax'": "--output argmax",
    ": prefix: ": ": --lstm: ",
}
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
  1    failed: one line on standard error says why; the same command goes on,
       as long as the model and the input stay the same
  2    the command was not understood
  3    done, with sequences skipped (--on-error skip)
  130  stopped by Ctrl-C, at a whole file; the same command goes on
"""
_MAIN = """\
Run LSTMs on the CPU: score files of sequences, look into models, convert and
time them.

A model is a file of cylstm (.safetensors), PyTorch (.pt), Keras (.keras, .h5)
or ONNX (.onnx)."""
_MAIN_EXAMPLES = """\
what is in a model:
  cylstm info tagger.safetensors

what would be done, with the first predictions; nothing is written:
  cylstm score tagger.safetensors posts.parquet scored --dry-run

the predictions for each row of posts.parquet, into the folder scored:
  cylstm score tagger.safetensors posts.parquet scored

`cylstm COMMAND --help` has each command's options and examples.
"""


class _Parser(argparse.ArgumentParser):
    """One whose errors are a line."""

    def error(self, message: str) -> NoReturn:
        """Say what was not understood, and where help is."""
        help_of = f"`{self.prog} --help` tells what there is"
        self.exit(USAGE, f"{self.prog}: {message}; {help_of}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser, commands = _parsers()
    if not arguments:
        parser.print_help(sys.stderr)
        return USAGE
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse(commands[given.command], unknown[0])
    with warnings.catch_warnings():
        warnings.showwarning = lambda text, *_: say(given.command, f"warning: {_one_line(text)}")
        return _run(given)


def _refuse(parser: argparse.ArgumentParser, argument: str) -> NoReturn:
    """Say that there is no such argument, and which is like it."""
    if not argument.startswith("-"):
        parser.error(f"expected no further argument, got {argument!r}")
    name = argument.partition("=")[0]
    like = get_close_matches(name, parser._option_string_actions, 1, cutoff=0.75)
    parser.error(f"there is no {name}" + "".join(f", but {other}" for other in like))


def _run(given: argparse.Namespace) -> int:
    try:
        return import_module(f"cylstm.cli.{given.command}").run(given)
    except KeyboardInterrupt:
        say(
            given.command,
            "stopped" + "; the same command goes on from here" * (given.command == "score"),
        )
        return STOPPED
    except BrokenPipeError:  # of `| head`
        return FAILED
    except _TOLD as error:
        say(given.command, as_option(_one_line(error), given))
        return FAILED


def say(command: str, text: str) -> None:
    """Tell something on standard error."""
    print(f"cylstm {command}: {text}", file=sys.stderr)


def _one_line(error: BaseException | str) -> str:
    """Return what an error says, in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename or 'an empty path'}: {error.strerror}"
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(str(text).split()) or type(error).__name__


def as_option(text: str, given: argparse.Namespace) -> str:
    """Let an error speak of the command's arguments, where it speaks of a function's."""
    for name, option in _SAID.items():
        text = text.replace(name, option)
    name, found, rest = text.partition(": ")
    if not found or name not in vars(given):
        return text
    return f"{_POSITIONAL.get(name) or '--' + name.replace('_', '-')}: {rest}"


def _parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the command's parser, and those of its commands."""
    parser = _Parser(
        prog="cylstm",
        description=_MAIN,
        epilog=f"{_MAIN_EXAMPLES}\n{_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cylstm {version('cylstm')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_score(commands)
    _add_info(commands)
    _add_convert(commands)
    _add_bench(commands)
    return parser, commands.choices


_SCORE = """\
Score files of sequences: run the model over each, and write a folder of
Parquet files with the key columns and a column `prediction`.

A row of the input is a whole sequence, with its steps in a column of lists; or
it is a step, and --by names the column that tells its sequence.

The command may be killed at any moment: started again it goes on, and writes
the same bytes."""
_SCORE_EXAMPLES = """\
a sequence a row, as lists of tokens; the most likely class by its name:
  cylstm score tagger.safetensors posts.parquet scored --features tokens \\
      --output argmax --labels names.txt

a step a row: rows of the same id are a sequence, in the order of time:
  cylstm score model.onnx 'logs/*.parquet' scored --by id --order time \\
      --features a,b,c

look first: the columns, the shapes, three predictions, and nothing is written:
  cylstm score tagger.safetensors posts.parquet scored --dry-run
"""


def _add_score(commands: argparse._SubParsersAction) -> None:
    codes = f"{_SCORE_EXAMPLES}\n{_SCORE_CODES}"
    parser = _command(commands, "score", "score files of sequences", _SCORE, codes)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a file of cylstm, Keras or ONNX; of a file of PyTorch the LSTM alone is read",
    )
    parser.add_argument(
        "source",
        metavar="INPUT",
        nargs="+",
        help="Parquet, Arrow IPC or CSV: files, a folder of them, or a pattern such as "
        "'logs/*.parquet'",
    )
    parser.add_argument(
        "target",
        metavar="OUTPUT",
        help="a folder that is new or empty, or that the same command began",
    )
    data = parser.add_argument_group("the data")
    data.add_argument(
        "--features",
        type=_names,
        metavar="A,B",
        help="the columns that the model reads: one of lists, of tokens or of the features of "
        "each step (default: the only one there is), or one for each feature; with --by one of "
        "tokens, or one for each feature",
    )
    data.add_argument(
        "--by",
        type=_names,
        metavar="A,B",
        help="a row is a step: rows with the same values in these columns are a sequence; they "
        "must follow each other",
    )
    data.add_argument(
        "--order",
        metavar="A",
        help="with --by: the column that puts a sequence's steps in order, such as a time "
        "(default: the order of the rows)",
    )
    data.add_argument(
        "--keys",
        type=_names,
        metavar="A,B",
        help="the columns that are copied to the output (default: those of --by and --order; "
        "without --by all columns that are not lists)",
    )
    _add_axes(data)
    result = parser.add_argument_group("the output")
    result.add_argument(
        "--output",
        choices=("raw", "probabilities", "argmax", "state"),
        default="raw",
        help="what the model returns, as it is (default); its softmax, or sigmoid; the place of "
        "the largest number; or h and c after the last step",
    )
    result.add_argument(
        "--steps",
        choices=("all", "last"),
        help="a prediction for each step, or for the last alone (default: all, if the model "
        "returns them)",
    )
    result.add_argument(
        "--labels",
        metavar="FILE",
        help="with --output argmax: a file of the classes' names, one a line or a JSON list, "
        "that are written instead of places",
    )
    result.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="at a sequence that is null or empty, or has a null, NaN or unknown token: stop and "
        "name it (default), or leave it out and note it in OUTPUT/_skipped",
    )
    result.add_argument(
        "--part-rows",
        type=_number,
        default=65_536,
        metavar="N",
        help="sequences in each file of the output, at most (default: 65536)",
    )
    result.add_argument(
        "--limit", type=_number, metavar="N", help="score only the first N sequences"
    )
    how = parser.add_argument_group("how it runs (the output stays the same)")
    how.add_argument(
        "--memory", default="2GB", metavar="SIZE", help="how much to use at most (default: 2GB)"
    )
    how.add_argument(
        "--threads",
        type=_number,
        metavar="N",
        help="default: OMP_NUM_THREADS, else all CPUs",
    )
    how.add_argument(
        "--batch-tokens",
        type=_number,
        metavar="N",
        help="steps, with padding, that are scored at once, at most (default: 4096 to 16384, "
        "by the model's size and the memory)",
    )
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="read the columns and three sequences, print the plan and their predictions, and "
        "write nothing",
    )
    how.add_argument("--json", action="store_true", help="print the summary as JSON")
    how.add_argument("--quiet", action="store_true", help="show no progress")


_INFO = """\
Tell what is in a model's file: its layers, how many parameters each has, what
the model takes and returns, and the arithmetic (flops) and the bytes of
parameters that a step of one sequence takes; or why it cannot be read."""
_INFO_EPILOG = f"""\
examples:
  cylstm info tagger.safetensors
  cylstm info model.onnx --json

{_CODES}"""


def _add_info(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "info", "tell what is in a model's file", _INFO, _INFO_EPILOG)
    parser.add_argument("file", metavar="FILE", help="a file of cylstm, PyTorch, Keras or ONNX")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


_CONVERT = """\
Write a model in another format, which the ending of OUT tells:

  .safetensors  cylstm's own, which cylstm.load opens
  .onnx         ONNX
  .pt           a state dict of PyTorch's, where PyTorch is installed"""
_CONVERT_EPILOG = f"""\
the LSTM of a PyTorch file, whose batches come first:
  cylstm convert tagger.pt lstm.safetensors --batch-first

the LSTM named `encoder` of an ONNX model, with weights of 8 bits:
  cylstm convert model.onnx encoder.safetensors --lstm encoder --quantize int8

{_CODES}"""


def _add_convert(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands, "convert", "write a model in another format", _CONVERT, _CONVERT_EPILOG
    )
    parser.add_argument("file", metavar="IN", help="a file of cylstm, PyTorch, Keras or ONNX")
    parser.add_argument("target", metavar="OUT", help="the file to write; one there is replaced")
    parser.add_argument(
        "--lstm",
        metavar="NAME",
        nargs="?",
        const="",
        help="take only the LSTM of the file's model; NAME says which of several",
    )
    _add_axes(parser)
    parser.add_argument(
        "--quantize",
        choices=("int8", "bfloat16"),
        help="keep weights in fewer bits: smaller, faster, less exact (for .safetensors)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="keep an input and its output in the file, which is tested by them whenever it is "
        "opened (for .safetensors)",
    )


_BENCH = """\
Time a model on this machine: a step of a stream (which keeps its state between
calls), and calls with whole sequences and batches. The last column compares
that with the least time that the machine could take, which is measured too:
for the arithmetic, or for reading the weights, whichever takes longer."""
_BENCH_EPILOG = f"""\
examples:
  cylstm bench tagger.safetensors
  cylstm bench tagger.safetensors --steps 50 --batches 1,64 --threads 2

{_CODES}"""


def _add_bench(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "bench", "time a model on this machine", _BENCH, _BENCH_EPILOG)
    parser.add_argument("file", metavar="FILE", help="a file of cylstm, PyTorch, Keras or ONNX")
    parser.add_argument(
        "--steps",
        type=_number,
        default=100,
        metavar="T",
        help="steps of a sequence (default: 100)",
    )
    parser.add_argument(
        "--batches",
        type=_numbers,
        default=(1, 32),
        metavar="N,N",
        help="how many sequences at once, one number or several (default: 1,32)",
    )
    parser.add_argument(
        "--threads",
        type=_numbers,
        metavar="N,N",
        help="how many threads, one number or several (default: 1, and all CPUs)",
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
        help="the first axis of the model's input is sequences, the second steps; needed where "
        "the file does not tell",
    )
    axes.add_argument(
        "--time-first",
        action="store_false",
        default=None,
        dest="batch_first",
        help="the first axis is steps, the second sequences",
    )


def _command(
    commands: argparse._SubParsersAction, name: str, short: str, text: str, epilog: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=short,
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"expected names such as a,b, got {text!r}")
    return names


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(number) for number in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers such as 1,32, got {text!r}")
    return found
