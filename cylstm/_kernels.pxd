# What src/kernels.h offers.

cdef extern from "kernels.h" nogil:
    ctypedef enum activation_kind:
        SIGMOID
        TANH
        RELU
        HARD_SIGMOID

    ctypedef struct activation:
        activation_kind kind
        double slope
        double offset

    ctypedef struct cell:
        Py_ssize_t hidden
        activation gates
        activation candidate
        activation output
        bint coupled
        double clip
        const void *peephole

    ctypedef struct step_tape:
        void *gates
        void *c
        void *tanh_c

    ctypedef struct step_gradients:
        const void *h
        void *c
        void *z
        void *bias
        void *peephole

    ctypedef struct kernels:
        const char *isa
        int width
        void (*activate)(const activation *, Py_ssize_t, const void *, void *) noexcept nogil
        void (*cell_run)(const cell *, Py_ssize_t, const void *, void *, void *) noexcept nogil
        void (*cell_forward)(const cell *, Py_ssize_t, const step_tape *, void *, void *) noexcept nogil
        void (*cell_backward)(const cell *, Py_ssize_t, const step_tape *, const void *,
                              const step_gradients *) noexcept nogil
        void (*cell_output)(const cell *, Py_ssize_t, const step_tape *, void *) noexcept nogil


cdef const kernels *table(str isa, bint is_double) except NULL
cdef activation as_activation(object spec) except *
