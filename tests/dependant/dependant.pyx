"""A model that is stepped, and run over sequences, without Python."""

from cylstm.cython_api cimport (
    CYLSTM_OK,
    cylstm_close,
    cylstm_error,
    cylstm_model,
    cylstm_open,
    cylstm_sequence,
    cylstm_sequence_double,
    cylstm_sizes,
    cylstm_sizes_of,
    cylstm_step,
    cylstm_step_double,
    import_cylstm,
)

import_cylstm()  # an ImportError if this was built for another cylstm


cdef class Model:
    cdef cylstm_model *model
    cdef readonly cylstm_sizes sizes

    def __cinit__(self, network):
        self.model = cylstm_open(network)
        cylstm_sizes_of(self.model, &self.sizes)

    def __dealloc__(self):
        cylstm_close(self.model)

    def steps(self, const float[:, :, ::1] x, float[:, :, ::1] h, float[:, :, ::1] c,
              float[:, :, ::1] y):
        """One step after the other."""
        cdef Py_ssize_t t
        cdef int code = CYLSTM_OK
        cdef float *first_c = NULL if c is None else &c[0, 0, 0]
        with nogil:
            for t in range(x.shape[0]):
                code = cylstm_step(self.model, x.shape[1], &x[t, 0, 0], &h[0, 0, 0], first_c,
                                   &y[t, 0, 0])
                if code != CYLSTM_OK:
                    break
        check(code)

    def steps_double(self, const double[:, :, ::1] x, double[:, :, ::1] h,
                     double[:, :, ::1] c, double[:, :, ::1] y):
        cdef Py_ssize_t t
        for t in range(x.shape[0]):
            check(cylstm_step_double(self.model, x.shape[1], &x[t, 0, 0], &h[0, 0, 0],
                                     &c[0, 0, 0], &y[t, 0, 0]))

    def sequence(self, const float[:, :, ::1] x, float[:, :, ::1] h, float[:, :, ::1] c,
                 float[:, :, ::1] y):
        cdef int code
        cdef float *first_c = NULL if c is None else &c[0, 0, 0]
        with nogil:
            code = cylstm_sequence(self.model, x.shape[0], x.shape[1], &x[0, 0, 0], &h[0, 0, 0],
                                   first_c, &y[0, 0, 0])
        check(code)

    def sequence_double(self, const double[:, :, ::1] x, double[:, :, ::1] h,
                        double[:, :, ::1] c, double[:, :, ::1] y):
        check(cylstm_sequence_double(self.model, x.shape[0], x.shape[1], &x[0, 0, 0],
                                     &h[0, 0, 0], &c[0, 0, 0], &y[0, 0, 0]))

    def wrong(self, Py_ssize_t steps, Py_ssize_t rows, float[::1] memory, Py_ssize_t h,
              Py_ssize_t c, Py_ssize_t y):
        """Arrays at these places of one memory; below zero for NULL."""
        check(cylstm_sequence(
            self.model, steps, rows, &memory[0],
            &memory[h] if h >= 0 else NULL, &memory[c] if c >= 0 else NULL,
            &memory[y] if y >= 0 else NULL))


cdef int check(int code) except -1:
    if code != CYLSTM_OK:
        raise ValueError(cylstm_error(code).decode())
    return 0
