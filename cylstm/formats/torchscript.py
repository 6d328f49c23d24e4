"""What the code in a TorchScript file says of an LSTM: it is searched as text, and never run.

A scripted module's class lists its constants; a traced one has the call of ``torch.lstm``, ``gru``,
``rnn_tanh`` or ``rnn_relu`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["options"]

_NAMES = ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
_CONSTANT = re.compile(rf"  ({'|'.join(_NAMES)}) : Final\[(?:bool|int|float)\] = (\S{{1,40}})")
# Its last arguments: has_biases, num_layers, dropout, train, bidirectional, batch_first. The call
# for packed sequences has no batch_first.
_CALL = re.compile(
    r".* = torch\.(lstm|gru|rnn_tanh|rnn_relu)\(.*, (True|False), (\d{1,9}), ([0-9.e+-]{1,40}), "
    r"\w+, (True|False), (True|False)\)"
)
_LONGEST_LINE = 10_000
_CALLED = ("bias", "num_layers", "dropout", "bidirectional", "batch_first")


def options(kind: str, code: Callable[[str], str | None]) -> dict[str, Any]:
    """Return an LSTM's options by name, as far as the code of its class tells them.

    Parameters
    ----------
    kind : str
        The class, module and name: ``"__torch__.torch.nn.modules.rnn LSTM"``.
    code : callable
        What gives the text of a file of code, or None.
    """
    module, _, name = kind.partition(" ")
    text = code(module.replace(".", "/") + ".py") or ""
    begin = f"\n{text}".find(f"\nclass {name}(")
    body = text[begin:].partition("\nclass ")[0] if begin >= 0 else ""
    told: dict[str, set[Any]] = {}
    for line in body.splitlines():
        if len(line) > _LONGEST_LINE:  # it could be made to take long
            continue
        if (constant := _CONSTANT.fullmatch(line)) is not None:
            told.setdefault(constant[1], set()).add(_value(constant[2]))
        elif (call := _CALL.fullmatch(line)) is not None:
            function, *values = call.groups()
            for option, value in zip(_CALLED, values, strict=True):
                told.setdefault(option, set()).add(_value(value))
            if function != "lstm":
                told.setdefault("mode", set()).add(function.upper())
    return {option: values.pop() for option, values in told.items() if len(values) == 1}


def _value(text: str) -> Any:
    """Return the value of a constant, which is a truth or a number."""
    if text in ("True", "False"):
        return text == "True"
    return float(text) if "." in text or "e" in text else int(text)
