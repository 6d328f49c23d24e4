"""`python -m cylstm`: the command."""

from cylstm.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
