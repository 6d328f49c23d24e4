/* Steps and sequences of a cylstm network, for other extension modules: in C, without Python.
 *
 * From Cython: `from cylstm.cython_api cimport ...`, which has these names. The compiler finds this file
 * in `cylstm.get_include()`.
 *
 * A model is a network's weights as they were when it was opened, and the memory that it computes in.
 * It is for one thread at a time; a network may have any number of models. All of the functions but
 * those that say so need no GIL, and all numbers are, to the bit, those of a call or a stream of the
 * network in Python.
 */
#ifndef CYLSTM_H
#define CYLSTM_H

#include <Python.h>
#include <stddef.h>

/* What this file and the library that is loaded must agree on: it changes when a function, or what it
 * takes, does. Functions that come at the table's end leave it as it is; `bytes` tells of them. */
#define CYLSTM_ABI 1

/* What the functions return. */
#define CYLSTM_OK 0
#define CYLSTM_NO_MEMORY (-1)
#define CYLSTM_BAD_ARGUMENT (-2) /* NULL, a number below zero or too large, or arrays that overlap */
#define CYLSTM_BAD_DTYPE (-3)    /* the network's numbers are not those of the function */
#define CYLSTM_NO_STREAM (-4)    /* a direction that reads from the end has no next step */
#define CYLSTM_BUSY (-5)         /* another thread uses the model now */
#define CYLSTM_NOT_IMPORTED (-6) /* `import_cylstm` was not called in this module */

typedef struct cylstm_model cylstm_model;

/* The shapes of the arrays: I, H, R and so on. */
typedef struct {
    ptrdiff_t input_size;  /* I */
    ptrdiff_t hidden_size; /* H */
    ptrdiff_t output_size; /* R, of one direction: H, or that of the projection */
    ptrdiff_t directions;  /* D */
    ptrdiff_t states;      /* layers times D */
    int itemsize;          /* 4 of float, 8 of double */
    int has_c;             /* whether the state is h and c, not h alone */
} cylstm_sizes;

typedef struct {
    int abi;
    size_t bytes; /* of the table */
    cylstm_model *(*open)(PyObject *network);
    void (*close)(cylstm_model *model);
    void (*sizes)(const cylstm_model *model, cylstm_sizes *sizes);
    int (*step)(cylstm_model *model, int itemsize, ptrdiff_t rows, const void *x, void *h, void *c,
                void *y);
    int (*sequence)(cylstm_model *model, int itemsize, ptrdiff_t steps, ptrdiff_t rows, const void *x,
                    void *h, void *c, void *y);
} cylstm_table;

#ifndef CYLSTM_ITSELF

static const cylstm_table *cylstm_functions_ = NULL;

/* To be called once in each extension module, with the GIL: 0, or -1 and an ImportError, of a
 * library that this file does not fit, too. */
static inline int import_cylstm(void) {
    const cylstm_table *found;
    PyObject *module = PyImport_ImportModule("cylstm.core.api"), *capsule;
    if (module == NULL) return -1;
    capsule = PyObject_GetAttrString(module, "table");
    Py_DECREF(module);
    if (capsule == NULL) return -1;
    found = (const cylstm_table *)PyCapsule_GetPointer(capsule, "cylstm.core.api.table");
    Py_DECREF(capsule);
    if (found == NULL) return -1;
    if (found->abi != CYLSTM_ABI || found->bytes < sizeof(cylstm_table)) {
        PyErr_Format(PyExc_ImportError,
                     "cylstm: this extension was built for ABI %d with a table of %zu bytes; the cylstm "
                     "that is installed has ABI %d and %zu bytes. Build the extension again, or "
                     "install the cylstm that it was built with",
                     CYLSTM_ABI, sizeof(cylstm_table), found->abi, found->bytes);
        return -1;
    }
    cylstm_functions_ = found;
    return 0;
}

/* A model of an LSTM, GRU or RNN, quantized or not: with the GIL; NULL and an exception if it is none
 * of these. Whoever opened it closes it. */
static inline cylstm_model *cylstm_open(PyObject *network) {
    if (cylstm_functions_ == NULL && import_cylstm() < 0) return NULL;
    return cylstm_functions_->open(network);
}

/* With the GIL, while nobody uses it. NULL is nothing to close. */
static inline void cylstm_close(cylstm_model *model) {
    if (cylstm_functions_ != NULL) cylstm_functions_->close(model);
}

static inline int cylstm_sizes_of(const cylstm_model *model, cylstm_sizes *sizes) {
    if (cylstm_functions_ == NULL) return CYLSTM_NOT_IMPORTED;
    if (model == NULL || sizes == NULL) return CYLSTM_BAD_ARGUMENT;
    cylstm_functions_->sizes(model, sizes);
    return CYLSTM_OK;
}

/* One step of so many sequences: x [rows, I], y [rows, R], written; h [states, rows, R] and
 * c [states, rows, H] are the state before, and become that after. A GRU and an RNN have no c: NULL.
 * What is written overlaps nothing else. After CYLSTM_NO_MEMORY what was in h, c and y is lost; other
 * errors leave it as it was. */
static inline int cylstm_step(cylstm_model *model, ptrdiff_t rows, const float *x, float *h, float *c,
                              float *y) {
    if (cylstm_functions_ == NULL) return CYLSTM_NOT_IMPORTED;
    return cylstm_functions_->step(model, (int)sizeof(float), rows, x, h, c, y);
}

static inline int cylstm_step_double(cylstm_model *model, ptrdiff_t rows, const double *x, double *h,
                                     double *c, double *y) {
    if (cylstm_functions_ == NULL) return CYLSTM_NOT_IMPORTED;
    return cylstm_functions_->step(model, (int)sizeof(double), rows, x, h, c, y);
}

/* So many steps of so many sequences, all of one length: x [steps, rows, I], y [steps, rows, D R]; h
 * and c as above. */
static inline int cylstm_sequence(cylstm_model *model, ptrdiff_t steps, ptrdiff_t rows, const float *x,
                                  float *h, float *c, float *y) {
    if (cylstm_functions_ == NULL) return CYLSTM_NOT_IMPORTED;
    return cylstm_functions_->sequence(model, (int)sizeof(float), steps, rows, x, h, c, y);
}

static inline int cylstm_sequence_double(cylstm_model *model, ptrdiff_t steps, ptrdiff_t rows,
                                         const double *x, double *h, double *c, double *y) {
    if (cylstm_functions_ == NULL) return CYLSTM_NOT_IMPORTED;
    return cylstm_functions_->sequence(model, (int)sizeof(double), steps, rows, x, h, c, y);
}

/* What a function's return says, in words. */
static inline const char *cylstm_error(int code) {
    switch (code) {
    case CYLSTM_OK: return "done";
    case CYLSTM_NO_MEMORY: return "no memory for the workspace";
    case CYLSTM_BAD_ARGUMENT:
        return "an argument is NULL, a number below zero or too large, or arrays overlap";
    case CYLSTM_BAD_DTYPE: return "the network's numbers are of another type";
    case CYLSTM_NO_STREAM: return "a direction that reads from the end cannot be streamed";
    case CYLSTM_BUSY: return "another thread uses the model now; open one for each";
    case CYLSTM_NOT_IMPORTED: return "import_cylstm() was not called in this module";
    default: return "an unknown error";
    }
}

#endif
#endif
