"""All tensors of a file of PyTorch's, for what stands around an LSTM."""

from __future__ import annotations

import os
from reprlib import repr as short

import numpy as np

from cylstm.formats.torch_files import contents
from cylstm.formats.torch_tensors import Tensor

__all__ = ["load_tensors"]


def load_tensors(path: str | os.PathLike[str], prefix: str = "") -> dict[str, np.ndarray]:
    """Read the tensors of a PyTorch or safetensors file. PyTorch need not be installed.

    `from_torch` makes the LSTM of such a file; this has what stands around it: tables of
    embeddings, linear layers, convolutions. Nothing in the file is run.

    Parameters
    ----------
    path : path-like
        A file that ``torch.save`` wrote, in any of its formats, or TorchScript's; a safetensors
        file; a pickle of arrays, or an ``.npz`` of them; a zip archive of such files.
    prefix : str, optional
        What the names begin with that are read, dot and all, such as ``"model_state."``; it is
        taken off them. Other tensors are not looked at.

    Returns
    -------
    dict of str to array
        In the file's own order and types; but bfloat16, which NumPy lacks, and quantized tensors
        are float32. In a checkpoint the names of all dictionaries down to the tensor belong to its
        name, joined by dots.

    Raises
    ------
    ValueError
        If no name begins with `prefix`, or the file is damaged, or a tensor has no real numbers.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     np.savez(path, **{"head.weight": np.ones((2, 3)), "head.bias": np.zeros(2)})
    ...     tensors = cylstm.load_tensors(path, "head.")
    >>> {name: array.shape for name, array in tensors.items()}
    {'weight': (2, 3), 'bias': (2,)}
    """
    with contents(path) as found:
        own = {name: each for name, each in found.tensors.items() if name.startswith(prefix)}
        if not own:
            names = ", ".join(map(repr, list(found.tensors)[:12]))
            raise ValueError(
                f"prefix: expected what tensors' names begin with, got {short(prefix)}; there are "
                f"{names or 'none'}"
            )
        return {
            name.removeprefix(prefix): each.numbers()
            if isinstance(each, Tensor)
            else np.asarray(each)
            for name, each in own.items()
        }
