# Packed weights.

from cylstm.core.cell cimport Cell
from cylstm.core.kernels cimport cell, cell_kernels, cell_sums, kernels, packed_matrix, packing


cdef extern from * nogil:
    """
    #ifndef CYLSTM_COUNT
    #define CYLSTM_COUNT
    static inline Py_ssize_t cylstm_count(const Py_ssize_t *count) {
        return __atomic_load_n(count, __ATOMIC_ACQUIRE);
    }
    static inline void cylstm_set_count(Py_ssize_t *count, Py_ssize_t now) {
        __atomic_store_n(count, now, __ATOMIC_RELEASE);
    }
    #endif
    #ifndef CYLSTM_FIND
    #define CYLSTM_FIND
    /* What a dict has at a key, or None. Cython's `get` borrows a reference, which without the GIL
     * another thread may give back meanwhile. */
    static inline PyObject *cylstm_find(PyObject *dict, PyObject *key) {
    #if PY_VERSION_HEX >= 0x030D0000
        PyObject *found;
        if (PyDict_GetItemRef(dict, key, &found) < 0) return NULL;
    #else
        PyObject *found = PyDict_GetItemWithError(dict, key);
        if (!found && PyErr_Occurred()) return NULL;
        Py_XINCREF(found);
    #endif
        return found ? found : Py_NewRef(Py_None);
    }
    #endif
    """
    Py_ssize_t cylstm_count(const Py_ssize_t *count)
    void cylstm_set_count(Py_ssize_t *count, Py_ssize_t now)


cdef extern from *:
    object cylstm_find(dict where, object key)


cdef class Version:
    cdef Py_ssize_t count


cdef inline Py_ssize_t changes_of(Version version) noexcept:
    return cylstm_count(&version.count)


cdef class Copy:
    cdef list memory         # what it points to


cdef class Kept:
    cdef Copy copy
    cdef Py_ssize_t changes  # of the parameters when they were packed
    cdef list left           # what is to have the copy when nobody has this; None for nothing


# A layer and direction as the time loop takes it, in C alone. It points into a `Packed`.
cdef struct runnable:
    const cell *equations
    const kernels *kernel
    const cell_kernels *functions
    const cell_sums *sums
    const packed_matrix *weights
    const packed_matrix *weight_ih
    const packed_matrix *weight_hh
    const packed_matrix *weight_hr
    bint projected, reverse
    Py_ssize_t itemsize, inputs, hidden, outputs


cdef class Packed(Copy):
    cdef cell equations                      # with peepholes of its own
    cdef packed_matrix weights               # [W_ih W_hh]; not of the transposes
    cdef packed_matrix weight_ih, weight_hh  # its two parts in the same memory
    cdef packed_matrix weight_hr
    cdef runnable ready                      # not of the transposes


cdef Kept current(dict copies, bint transposed, Version version)
cdef Kept renewed(dict copies, bint transposed, Version version, type kind)
cdef list all_packed(store, Version version, list cells)
cdef void point_to(list weights, const runnable **cells) noexcept
cdef Kept packed(Version version, Cell r, bint transposed)
cdef const runnable *ready_of(Kept kept) noexcept
cdef int pack_seldom(const kernels *kernel, Py_ssize_t size, list memory, const void *matrix,
                     Py_ssize_t rows, Py_ssize_t columns, packed_matrix *to) except -1
cdef int vectors_for(const kernels *kernel, Py_ssize_t depth,
                     Py_ssize_t outputs) noexcept nogil
cdef int new_matrix(const kernels *kernel, Py_ssize_t size, list memory, const packing *how,
                    bint has_bias, int parts, packed_matrix *to) except -1
cdef Py_ssize_t whole_groups(const kernels *kernel, Py_ssize_t depth) noexcept nogil
cdef void set_steps(const kernels *kernel, packed_matrix *to) noexcept nogil
cdef packed_matrix in_place(const kernels *kernel, const void *matrix, Py_ssize_t rows,
                            Py_ssize_t columns) noexcept nogil
