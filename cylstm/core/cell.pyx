"""One layer and direction: its parameters and equations.

Sequences are sorted by falling length, so that those still running at step t are the first
``sizes[t]`` rows of the batch. *Packed* arrays hold these rows one step after the other, and step t
begins at row ``offsets[t]``: what PyTorch calls a PackedSequence. A batch of equal lengths is
packed as it lies in memory.
"""

import numpy as np

from cylstm.core.kernels cimport GRU, LSTM, RNN, as_activation, cylstm_sums, format_of, table
from cylstm.core.memory cimport Spare, first_of

from cylstm.core.kernels import ISA, PRODUCT


cdef class Cell:
    """The parameters of one layer and direction.

    The arrays are shared with the caller, not copied, and must stay where they are.

    Parameters
    ----------
    parameters : dict
        ``weight_ih`` (GH, I), ``weight_hh`` (GH, R), of G gates, and, where the layer has them,
        ``bias`` (GH,), ``bias_hn`` (H,), ``weight_hr`` (R, H), ``weight_p`` (3H,): C-contiguous, of
        one dtype. For inference alone the matrices may be of int8, with ``weight_ih_scale`` (GH,)
        and the like, or of uint16, the bits of bfloat16; the others are then of float32.
    kind : {"LSTM", "GRU", "RNN"}
    reverse, coupled, clip, activations
        As of `cylstm.LSTM`; `clip` is infinity for none, an activation ``(name, slope, offset)``.
        Of `activations` a GRU has no use for the third, an RNN for the second alone.
    """

    def __init__(self, dict parameters, *, str kind, bint reverse, double clip, activations,
                 bint coupled=False, str isa=ISA, str product=PRODUCT):
        cdef int number = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}[kind]
        weight_ih, weight_hh = parameters["weight_ih"], parameters["weight_hh"]
        self.parameters = parameters
        self.packed = {}
        self.tapes = Spare()
        self.reverse = reverse
        self.is_double = weight_ih.dtype == np.float64
        self.inputs, self.outputs = weight_ih.shape[1], weight_hh.shape[1]
        self.sums = &cylstm_sums[number]
        self.hidden = weight_ih.shape[0] // self.sums.gates
        self.kernel = table(isa, format_of(weight_ih.dtype), product)
        self.functions = &self.kernel.cells[number]
        self.weight_ih = first_of(weight_ih)
        self.weight_hh = first_of(weight_hh)
        self.weight_hr = first_of(parameters.get("weight_hr"))
        self.bias = first_of(parameters.get("bias"))
        self.bias_hn = first_of(parameters.get("bias_hn"))
        self.equations.hidden = self.hidden
        self.equations.coupled = coupled
        self.equations.clip = clip
        self.equations.peephole = first_of(parameters.get("weight_p"))
        gates, candidate, output = activations
        self.equations.gates = as_activation(gates)
        self.equations.candidate = as_activation(candidate)
        self.equations.output = as_activation(output)

    def new_tape(self, Py_ssize_t rows):
        """Memory for the activated sums of gates, an LSTM's (S, 4H), and then its c (S, H) and the
        output activation of c (S, H)."""
        size = self.sums.taped * rows * self.hidden
        return self.tapes.empty(size, self.parameters["weight_ih"].dtype)
