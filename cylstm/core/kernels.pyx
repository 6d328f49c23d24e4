"""The tables of C kernels: which there are for this CPU, and which one is used.

``CYLSTM_ISA`` names an instruction set, ``CYLSTM_PRODUCT`` (packed or blas) whose products.
"""

import os

from cylstm.core.kernels cimport (
    BFLOAT16,
    FLOAT32,
    FLOAT64,
    HARD_SIGMOID,
    INT8,
    RELU,
    SIGMOID,
    TANH,
    activation,
    format,
    kernels,
)


cdef extern from "kernels.h":
    const char *const *cylstm_isas()
    const kernels *cylstm_kernels(const char *isa, format weights, bint by_blas)
    add_product *cylstm_add_product

cdef extern from *:
    """
    #if defined(__clang__)
    #define CYLSTM_COMPILER "Clang " __clang_version__
    #elif defined(__GNUC__)
    #define CYLSTM_COMPILER "GCC " __VERSION__
    #else
    #define CYLSTM_COMPILER "unknown"
    #endif
    """
    const char *CYLSTM_COMPILER
    const char *CYLSTM_FLAGS   # what setup.py says
    const char *CYLSTM_CYTHON


cdef tuple _available():
    cdef const char *const *names = cylstm_isas()
    found = []
    while names[len(found)] != NULL:
        found.append(names[len(found)].decode())
    return tuple(found)


def _selected():
    forced = os.environ.get("CYLSTM_ISA")
    if forced and forced not in ISAS:
        raise ImportError(f"CYLSTM_ISA: expected one of {', '.join(ISAS)} (what this CPU has and "
                          f"this build holds), got {forced!r}")
    return forced or ISAS[0]


def _product():
    chosen = os.environ.get("CYLSTM_PRODUCT", "packed")
    if chosen not in ("packed", "blas"):
        raise ImportError(f"CYLSTM_PRODUCT: expected 'packed' or 'blas', got {chosen!r}")
    return chosen


def built_with():
    """The compiler, its flags for every instruction set, and Cython."""
    return {"compiler": CYLSTM_COMPILER.decode().strip(), "flags": CYLSTM_FLAGS.decode(),
            "Cython": CYLSTM_CYTHON.decode()}


ISAS = _available()  # of this CPU and build, the best first
ISA = _selected()    # the one in use
PRODUCT = _product()  # whose products: our own, or BLAS's


cdef const kernels *table(str isa, format weights, str product) except NULL:
    """Of weights that do not train the products are always our own."""
    cdef bint by_blas = product == "blas" and weights in (FLOAT32, FLOAT64)
    cdef const kernels *found = cylstm_kernels(isa.encode(), weights, by_blas)
    if by_blas:
        __import__("cylstm.core.blas")  # it calls `use_blas`; another thread's import is awaited
    if found == NULL:
        raise ValueError(f"isa: expected one of {', '.join(ISAS)}, got {isa!r}")
    return found


cdef format format_of(dtype) except *:
    """Of weights that come in arrays of this dtype; bfloat16, which NumPy lacks, as its bits."""
    return {"f": FLOAT32, "d": FLOAT64, "H": BFLOAT16, "b": INT8}[dtype.char]  # name takes longer


cdef void use_blas(add_product of_float, add_product of_double) noexcept:
    """For `cylstm.core.blas`, which is imported when it is to be used, and SciPy with it."""
    cylstm_add_product[0] = of_float
    cylstm_add_product[1] = of_double


cdef activation as_activation(object spec) except *:
    """From ``(name, slope, offset)``."""
    cdef activation made
    kinds = {"sigmoid": SIGMOID, "tanh": TANH, "relu": RELU, "hard_sigmoid": HARD_SIGMOID}
    name, made.slope, made.offset = spec
    made.kind = kinds[name]
    return made


def activate(spec, x, str isa=None):
    """The activation ``(name, slope, offset)`` of a contiguous array."""
    cdef activation a = as_activation(spec)
    cdef float[::1] x32, y32
    cdef double[::1] x64, y64
    y = x.copy()
    isa = isa or ISA
    if x.dtype == "float32":
        x32, y32 = x, y
        table(isa, FLOAT32, PRODUCT).activate(&a, x32.shape[0], &x32[0], &y32[0])
    else:
        x64, y64 = x, y
        table(isa, FLOAT64, PRODUCT).activate(&a, x64.shape[0], &x64[0], &y64[0])
    return y
