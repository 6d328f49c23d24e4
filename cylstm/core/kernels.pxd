# What src/kernels.h offers.

cdef extern from "kernels.h" nogil:
    ctypedef enum format:
        FLOAT32
        FLOAT64
        BFLOAT16
        INT8

    ctypedef enum activation_kind:
        SIGMOID
        TANH
        RELU
        HARD_SIGMOID

    ctypedef enum cell_kind:
        LSTM
        GRU
        RNN

    ctypedef struct cell_sums:
        int gates
        int sums
        int taped
        bint has_c
        int tile
        int common
        int common_sum
        int x_sum
        int h_sum
        int first_of_h
        signed char x[4]
        signed char h[4]

    const cell_sums *cylstm_sums

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
        Py_ssize_t gates_row
        Py_ssize_t c_row

    ctypedef struct step_gradients:
        const void *h
        const void *y
        void *c
        void *z
        Py_ssize_t h_row
        Py_ssize_t y_row
        Py_ssize_t c_row
        Py_ssize_t z_row

    ctypedef struct packing:
        const signed char *gates
        int vectors
        int at
        Py_ssize_t outputs
        Py_ssize_t depth
        Py_ssize_t row_step
        Py_ssize_t k_step
        const void *scales

    ctypedef struct packed_matrix:
        int vectors
        Py_ssize_t tiles
        Py_ssize_t depth
        Py_ssize_t tile_step
        Py_ssize_t k_step
        Py_ssize_t half_step
        const void *weights
        const void *bias
        Py_ssize_t first
        const void *scales
        const void *starts

    ctypedef struct packed_step:
        const void *v
        void *z
        const Py_ssize_t *z_rows
        void *c
        void *h
        void *y
        const Py_ssize_t *y_rows
        const step_tape *tape
        Py_ssize_t v_row
        Py_ssize_t z_row
        Py_ssize_t c_row
        Py_ssize_t h_row
        Py_ssize_t y_row
        bint down

    ctypedef struct update_rule:
        double rate
        double correction
        double momentum
        bint nesterov
        double mean
        double square
        double eps
        double decay
        double shrink

    ctypedef void update(const update_rule *, Py_ssize_t, void *, const void *, void *,
                         void *) noexcept nogil

    ctypedef struct cell_kernels:
        void (*step)(const cell *, const packed_matrix *, Py_ssize_t, const packed_step *,
                     Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*backward)(const cell *, Py_ssize_t, const step_tape *, const void *, Py_ssize_t,
                         const step_gradients *, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*sum_gradients)(const cell *, Py_ssize_t, const step_tape *, const void *,
                              Py_ssize_t, const void *, Py_ssize_t, void *, void *,
                              Py_ssize_t, Py_ssize_t) noexcept nogil

    ctypedef struct kernels:
        const char *isa
        int width
        int group
        bint halves
        bint flat
        int together
        int weight_size
        int input_size
        int header
        void (*convert)(Py_ssize_t, const void *, int, Py_ssize_t, void *) noexcept nogil
        void (*activate)(const activation *, Py_ssize_t, const void *, void *) noexcept nogil
        void (*add)(Py_ssize_t, const void *, void *) noexcept nogil
        void (*cell_output)(const cell *, Py_ssize_t, const step_tape *, void *) noexcept nogil
        Py_ssize_t (*packed_tiles)(const packing *) noexcept nogil
        void (*pack)(const packing *, const void *, const void *,
                     const packed_matrix *) noexcept nogil
        void (*multiply)(const packed_matrix *, Py_ssize_t, const void *, Py_ssize_t, void *,
                         Py_ssize_t, Py_ssize_t, Py_ssize_t, bint, bint) noexcept nogil
        void (*pack_columns)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *const *,
                             void *) noexcept nogil
        void (*add_outer)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, const void *const *,
                          Py_ssize_t, void *, Py_ssize_t, bint, void *) noexcept nogil
        void (*transpose)(Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, void *,
                          Py_ssize_t) noexcept nogil
        void (*cross_entropy)(Py_ssize_t, Py_ssize_t, const void *, const Py_ssize_t *, double,
                              void *, double *) noexcept nogil
        void (*softmax)(Py_ssize_t, Py_ssize_t, double, void *, Py_ssize_t) noexcept nogil
        void (*softmax_gradient)(Py_ssize_t, Py_ssize_t, double, const void *, Py_ssize_t, void *,
                                 Py_ssize_t) noexcept nogil
        update *sgd
        update *adam
        update *rmsprop
        double (*sum_of_squares)(Py_ssize_t, const void *) noexcept nogil
        void (*scale)(Py_ssize_t, double, void *) noexcept nogil
        cell_kernels cells[3]

    ctypedef void (*add_product)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t,
                                 const void *, Py_ssize_t, void *, Py_ssize_t) noexcept nogil


cdef const kernels *table(str isa, format weights, str product) except NULL
cdef format format_of(dtype) except *
cdef void use_blas(add_product of_float, add_product of_double) noexcept
cdef activation as_activation(object spec) except *
