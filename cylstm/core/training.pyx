"""What training does beside the recurrence: losses, sums over gradients, updates of parameters.

Arrays are divided where their shape says, not where threads are: so results do not depend on them.
"""

cimport numpy as cnp
from libc.string cimport memcpy, memset

import numpy as np

from cylstm.core.kernels cimport FLOAT32, FLOAT64, kernels, table, update, update_rule
from cylstm.core.memory cimport Spare, check_array, first_of
from cylstm.core.team cimport VARIOUS, share, unit_work, useful_threads

from cylstm.core.kernels import ISA, PRODUCT

cnp.import_array()

cdef enum:
    EACH = 16384     # numbers of a unit of work
    OF_NUMBER = 10   # multiply-adds that an update of a number is worth: it waits for memory
    OF_LOGIT = 20    # and a softmax of one

cdef Spare _gradients = Spare()  # of logits


# What a team does with an array: its units are rows of a matrix, or parts of a row.
cdef struct job:
    const kernels *kernel
    update *change
    update_rule rule
    Py_ssize_t size, width, count  # of the array: (count, width)
    Py_ssize_t parts, rows_each    # of a row; or rows of a unit, where it is one part
    Py_ssize_t units
    char *array
    char *parameter                # what is changed by it, and
    char *first                    # what is kept for that; or what is written
    char *second
    const Py_ssize_t *rows         # of the parameter; or labels
    double *sums                   # of units, or rows
    double factor


cdef const kernels *kernel_of(int typenum) except NULL:
    if typenum not in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE):
        raise TypeError("expected an array of float32 or float64")
    return table(ISA, FLOAT64 if typenum == cnp.NPY_DOUBLE else FLOAT32, PRODUCT)


cdef job job_on(array, Py_ssize_t count, Py_ssize_t width) except *:
    """A job on a contiguous matrix (count, width) of real numbers."""
    cdef job j
    memset(&j, 0, sizeof(job))
    j.kernel = kernel_of(cnp.PyArray_TYPE(array))
    check_array(array, cnp.PyArray_TYPE(array), count * width)
    j.size, j.count, j.width = cnp.PyArray_ITEMSIZE(array), count, width
    j.parts = max(1, (width + EACH - 1) // EACH)
    j.rows_each = max(1, EACH // max(width, 1))
    j.units = (count + j.rows_each - 1) // j.rows_each * j.parts if width else 0
    j.array = first_of(array)
    return j


cdef void run_job(job *j, unit_work work, double each) noexcept:
    cdef int threads = useful_threads(each * j.count * j.width)
    with nogil:
        share(threads, <int> j.units, VARIOUS, work, j)


# A unit's rows and columns.
cdef struct place:
    Py_ssize_t row, rows, column, columns


cdef inline place place_of(const job *j, int unit) noexcept nogil:
    cdef place at
    cdef Py_ssize_t part = unit % j.parts
    at.row = unit // j.parts * j.rows_each
    at.rows = min(j.rows_each, j.count - at.row)
    at.column = part * j.width // j.parts
    at.columns = (part + 1) * j.width // j.parts - at.column
    return at


def change(str name, dict rule, parameter, gradient, rows, first=None, second=None):
    """An optimizer's update of a parameter, in place.

    Parameters
    ----------
    name : {"sgd", "adam", "rmsprop"}
    rule : dict
        An `update_rule` of src/kernels.h.
    parameter : array, (R, W)
    gradient : array, (K, W)
    rows : array of intp, (K,)
        Which rows of the parameter the gradient is of, rising.
    first, second : array, (R, W), optional
        What is kept for the parameter, and changed with it.
    """
    cdef Py_ssize_t height = parameter.shape[0]
    cdef job j
    if gradient.shape != (len(rows), parameter.shape[1]):
        raise ValueError(f"gradient: expected shape ({len(rows)}, {parameter.shape[1]}), "
                         f"got {gradient.shape}")
    j = job_on(gradient, len(rows), parameter.shape[1])
    for array in (parameter, first, second):
        if array is not None:
            check_array(array, cnp.PyArray_TYPE(gradient), height * j.width)
    check_rising(rows, height)
    j.change = update_of(j.kernel, name)
    j.rule = rule
    j.rows, j.parameter = <const Py_ssize_t *> first_of(rows), first_of(parameter)
    j.first, j.second = first_of(first), first_of(second)
    run_job(&j, change_unit, OF_NUMBER)


cdef update *update_of(const kernels *kernel, str name) except NULL:
    if name == "sgd":
        return kernel.sgd
    return kernel.adam if name == "adam" else kernel.rmsprop


cdef int check_rising(rows, Py_ssize_t height) except -1:
    """Whatever made them, no row is outside of the array, and each is taken once."""
    cdef const Py_ssize_t *row
    cdef Py_ssize_t k
    check_array(rows, cnp.NPY_INTP, len(rows))
    row = <const Py_ssize_t *> first_of(rows)
    for k in range(len(rows)):
        if not (0 <= row[k] < height and (k == 0 or row[k - 1] < row[k])):
            raise ValueError(f"rows: expected rising numbers from 0 to {height - 1}, "
                             f"got {row[k]} at place {k}")
    return 0


def sum_of_squares(list arrays):
    """Of contiguous arrays; in float64."""
    cdef double total = 0
    cdef job j
    cdef Py_ssize_t unit
    for x in arrays:
        j = job_on(x, 1, cnp.PyArray_SIZE(x))
        sums = np.empty(j.units)
        j.sums = <double *> first_of(sums)
        run_job(&j, square_unit, 1)
        for unit in range(j.units):
            total += j.sums[unit]
    return total


def scale(list arrays, double factor):
    """Contiguous arrays, in place."""
    cdef job j
    for x in arrays:
        j = job_on(x, 1, cnp.PyArray_SIZE(x))
        j.factor = factor
        run_job(&j, scale_unit, 1)


def cross_entropy(logits, labels, double each):
    """The losses of rows of logits, and `each` times their gradient.

    Parameters
    ----------
    logits : array, (N, C)
    labels : array of intp, (N,)
        From 0 to C - 1, or -1 for rows that do not count.

    Returns
    -------
    losses : array of float64, (N,)
    gradient : array, (N, C)
    """
    cdef job j = job_on(logits, logits.shape[0], logits.shape[1])
    cdef Py_ssize_t row
    check_array(labels, cnp.NPY_INTP, j.count)
    j.rows = <const Py_ssize_t *> first_of(labels)
    for row in range(j.count):
        if not -1 <= j.rows[row] < j.width:
            raise ValueError(f"labels: expected less than {j.width}, got {j.rows[row]}")
    losses = np.empty(j.count)
    gradient = _gradients.empty(logits.shape, logits.dtype)
    j.sums, j.first, j.factor = <double *> first_of(losses), first_of(gradient), each
    j.units, j.parts = j.units // j.parts, 1  # rows are whole
    run_job(&j, entropy_unit, OF_LOGIT)
    return losses, gradient


def sums_by_id(ids, order, values):
    """The sums of those rows that have the same id.

    Parameters
    ----------
    ids, order : array of intp, (N,)
        And the order in which they rise.
    values : array, (N, W)

    Returns
    -------
    different : array of intp, (K,)
        The ids there are, rising.
    sums : array, (K, W)
    """
    cdef job j = job_on(values, values.shape[0], values.shape[1])
    cdef Py_ssize_t row = j.width * j.size, n = j.count, k, at = -1
    cdef const Py_ssize_t *own
    cdef const Py_ssize_t *place
    cdef Py_ssize_t *found
    cdef char *to
    for array in (ids, order):
        check_array(array, cnp.NPY_INTP, n)
    own, place = <const Py_ssize_t *> first_of(ids), <const Py_ssize_t *> first_of(order)
    for k in range(n):
        if not (0 <= place[k] < n and (k == 0 or own[place[k - 1]] <= own[place[k]])):
            raise ValueError("order: expected one in which the ids rise")
        at += k == 0 or own[place[k - 1]] != own[place[k]]
    different, sums = np.empty(at + 1, np.intp), np.empty((at + 1, j.width), values.dtype)
    found, to, at = <Py_ssize_t *> first_of(different), first_of(sums), -1
    with nogil:
        for k in range(n):
            if k > 0 and own[place[k - 1]] == own[place[k]]:
                j.kernel.add(j.width, j.array + place[k] * row, to + at * row)
                continue
            at += 1
            found[at] = own[place[k]]
            memcpy(to + at * row, j.array + place[k] * row, row)
    return different, sums


# No Python from here on.


cdef void change_unit(void *given, int unit, int member) noexcept nogil:
    cdef job *j = <job *> given
    cdef place p = place_of(j, unit)
    cdef Py_ssize_t k, at
    for k in range(p.row, p.row + p.rows):
        at = (j.rows[k] * j.width + p.column) * j.size
        j.change(&j.rule, p.columns, j.parameter + at, j.array + (k * j.width + p.column) * j.size,
                 j.first + at if j.first != NULL else NULL,
                 j.second + at if j.second != NULL else NULL)


cdef void square_unit(void *given, int unit, int member) noexcept nogil:
    cdef job *j = <job *> given
    cdef place p = place_of(j, unit)
    j.sums[unit] = j.kernel.sum_of_squares(p.columns, j.array + p.column * j.size)


cdef void scale_unit(void *given, int unit, int member) noexcept nogil:
    cdef job *j = <job *> given
    cdef place p = place_of(j, unit)
    j.kernel.scale(p.columns, j.factor, j.array + p.column * j.size)


cdef void entropy_unit(void *given, int unit, int member) noexcept nogil:
    cdef job *j = <job *> given
    cdef place p = place_of(j, unit)
    cdef Py_ssize_t at = p.row * j.width * j.size
    j.kernel.cross_entropy(p.rows, j.width, j.array + at, j.rows + p.row, j.factor, j.first + at,
                           j.sums + p.row)
