"""The tests under a sanitizer: see `python -m tools.sanitize --help`."""
