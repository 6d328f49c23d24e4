"""One layer and direction: its parameters and equations.

Sequences are sorted by falling length, so that those still running at step t are the first
``sizes[t]`` rows of the batch. *Packed* arrays hold these rows one step after the other, and step t
begins at row ``offsets[t]``: what PyTorch calls a PackedSequence. A batch of equal lengths is
packed as it lies in memory.
"""

import numpy as np

from cylstm.core.kernels cimport as_activation, format_of, table
from cylstm.core.memory cimport first_of

from cylstm.core.kernels import ISA, PRODUCT
from cylstm.core.memory import aligned_empty


cdef class Cell:
    """The parameters of one layer and direction.

    The arrays are shared with the caller, not copied, and must stay where they are.

    Parameters
    ----------
    parameters : dict
        ``weight_ih`` (4H, I), ``weight_hh`` (4H, R) and, where the layer has them, ``bias`` (4H,),
        ``weight_hr`` (R, H), ``weight_p`` (3H,): C-contiguous, of one dtype. For inference alone
        the matrices may be of int8, with ``weight_ih_scale`` (4H,) and the like, or of uint16, the
        bits of bfloat16; the others are then of float32.
    reverse, coupled, clip, activations
        As of `cylstm.LSTM`; `clip` is infinity for none, an activation ``(name, slope, offset)``.
    """

    def __init__(self, dict parameters, *, bint reverse, bint coupled, double clip, activations,
                 str isa=ISA, str product=PRODUCT):
        weight_ih, weight_hh = parameters["weight_ih"], parameters["weight_hh"]
        self.parameters = parameters
        self.packed = {}
        self.reverse = reverse
        self.is_double = weight_ih.dtype == np.float64
        self.inputs, self.outputs = weight_ih.shape[1], weight_hh.shape[1]
        self.hidden = weight_ih.shape[0] // 4
        self.kernel = table(isa, format_of(weight_ih.dtype), product)
        self.weight_ih = first_of(weight_ih)
        self.weight_hh = first_of(weight_hh)
        self.weight_hr = first_of(parameters.get("weight_hr"))
        self.bias = first_of(parameters.get("bias"))
        self.equations.hidden = self.hidden
        self.equations.coupled = coupled
        self.equations.clip = clip
        self.equations.peephole = first_of(parameters.get("weight_p"))
        gates, candidate, output = activations
        self.equations.gates = as_activation(gates)
        self.equations.candidate = as_activation(candidate)
        self.equations.output = as_activation(output)

    def new_tape(self, Py_ssize_t rows):
        """Memory for the activated gates (S, 4H), c (S, H) and its output activation (S, H)."""
        return aligned_empty(6 * rows * self.hidden, self.parameters["weight_ih"].dtype)
