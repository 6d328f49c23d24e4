"""What stands in for a framework that is not installed, where a package imports it."""

import contextlib
import sys
from types import SimpleNamespace

import numpy as np


@contextlib.contextmanager
def standing_in(**modules):
    """Let imports within find these, and none of them after; `a__b` stands for ``a.b``."""
    named = {name.replace("__", "."): module for name, module in modules.items()}
    before = {name: sys.modules[name] for name in named if name in sys.modules}
    sys.modules.update(named)
    try:
        yield
    finally:
        for name in named:
            del sys.modules[name]
        sys.modules.update(before)


class Tensor(np.ndarray):
    """An array that is also called as PyTorch's and TensorFlow's are."""

    def __new__(cls, values):
        return np.asarray(values, np.float32).view(cls)

    def numpy(self):
        return np.asarray(self)

    def cpu(self):
        return self

    def to(self, device):
        return self

    def dim(self):
        return self.ndim


class Module:
    """A module without parameters."""

    def __call__(self, *given):
        return self.forward(*given)


class no_grad(contextlib.ContextDecorator):
    """There are no gradients."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def pad(x, widths, mode="constant", value=0.0):
    """Add numbers at both ends of the last axis, as ``torch.nn.functional.pad`` does."""
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [widths], mode).view(type(x))


NN = SimpleNamespace(Module=Module, functional=SimpleNamespace(pad=pad))
TORCH = SimpleNamespace(
    nn=NN,
    Tensor=Tensor,
    FloatTensor=Tensor,
    device=str,
    from_numpy=Tensor,
    is_tensor=lambda x: isinstance(x, Tensor),
    no_grad=no_grad,
    set_num_threads=lambda n: None,
)
