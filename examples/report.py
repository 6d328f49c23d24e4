"""What the examples have in common: their arguments, their claims, their tables."""

import argparse
import sys
from pathlib import Path


def parse_arguments(doc, **options):
    """Return the arguments of an example; `options` are its own: (default, help) by name."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    for name, (default, text) in options.items():
        kind, option = type(default), f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--quick", action="store_true", help="little of everything: a test run")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for model and pictures")
    arguments = parser.parse_args()
    for name, (default, _) in options.items():
        if not isinstance(default, str) and getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def claim(holds, text):
    """Print a claim; end the program with an error if it does not hold."""
    print(f"{'ok' if holds else 'FAILED':<7}{text}")
    if not holds:
        sys.exit(1)


def print_table(title, columns, rows):
    """Print numbers under their columns, one line for each name in `rows`."""
    width = max(map(len, [title, *rows])) + 2
    print(f"\n{title:<{width}}" + "".join(f"{column:>18}" for column in columns))
    for name, numbers in rows.items():
        print(f"{name:<{width}}" + "".join(f"{number:>18.4g}" for number in numbers))
    print()
