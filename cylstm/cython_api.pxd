"""Steps and sequences of a cylstm network, for other extension modules: see include/cylstm.h.

    from cylstm.cython_api cimport cylstm_step, import_cylstm

    import_cylstm()  # once in each module: an ImportError if the two do not fit
"""

cdef extern from "cylstm.h":
    enum:
        CYLSTM_ABI
        CYLSTM_OK
        CYLSTM_NO_MEMORY
        CYLSTM_BAD_ARGUMENT
        CYLSTM_BAD_DTYPE
        CYLSTM_NO_STREAM
        CYLSTM_BUSY
        CYLSTM_NOT_IMPORTED

    ctypedef struct cylstm_model:
        pass

    ctypedef struct cylstm_sizes:
        Py_ssize_t input_size
        Py_ssize_t hidden_size
        Py_ssize_t output_size
        Py_ssize_t directions
        Py_ssize_t states
        int itemsize
        int has_c

    int import_cylstm() except -1
    cylstm_model *cylstm_open(object network) except NULL
    void cylstm_close(cylstm_model *model) noexcept
    int cylstm_sizes_of(const cylstm_model *model, cylstm_sizes *sizes) noexcept nogil
    int cylstm_step(cylstm_model *model, Py_ssize_t rows, const float *x, float *h, float *c,
                    float *y) noexcept nogil
    int cylstm_step_double(cylstm_model *model, Py_ssize_t rows, const double *x, double *h,
                           double *c, double *y) noexcept nogil
    int cylstm_sequence(cylstm_model *model, Py_ssize_t steps, Py_ssize_t rows, const float *x,
                        float *h, float *c, float *y) noexcept nogil
    int cylstm_sequence_double(cylstm_model *model, Py_ssize_t steps, Py_ssize_t rows,
                               const double *x, double *h, double *c, double *y) noexcept nogil
    const char *cylstm_error(int code) noexcept nogil
