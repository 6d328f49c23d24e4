/* The C interface of the kernels: one table of functions per (instruction set, dtype).
 *
 * Every `void *` array holds reals of the table's dtype, row-major. Shapes are in brackets: n rows
 * (the sequences that are advanced together), H hidden units. A gate array is [n, 4H], the gates of
 * a row in the order i, f, g, o. Arrays that are written overlap no other argument, unless said.
 */
#ifndef CYLSTM_KERNELS_H
#define CYLSTM_KERNELS_H

#include <stddef.h>

typedef enum { SIGMOID, TANH, RELU, HARD_SIGMOID } activation_kind;

typedef struct {
    activation_kind kind;
    double slope, offset; /* hard_sigmoid(x) = min(1, max(0, slope x + offset)) */
} activation;

/* What the gate equations of one layer and direction need to know beside their arrays. */
typedef struct {
    ptrdiff_t hidden;                   /* H */
    activation gates, candidate, output;
    int coupled;                        /* f = 1 - i */
    double clip;                        /* bound of the pre-activations, infinity for none */
    const void *peephole;               /* [3H]: i, f, o; NULL for none */
} cell;

/* What one forward step leaves for the backward pass: the step's rows of the tape. */
typedef struct {
    void *gates;   /* [n, 4H]: pre-activations going in, activations coming out */
    void *c;       /* [n, H] */
    void *tanh_c;  /* [n, H]: the output activation of c */
} step_tape;

/* The gradients that one backward step reads and writes. */
typedef struct {
    const void *h; /* [n, H]: of the cell's output, before any projection */
    void *c;       /* [n, H]: of c_t going in, of c_{t-1} coming out */
    void *z;       /* [n, 4H], written: of the pre-activations */
    void *bias;    /* [4H], added to */
    void *peephole;/* [3H], added to; NULL where the cell has none */
} step_gradients;

typedef struct {
    const char *isa;
    int width; /* reals in a vector */

    /* y[j] = a(x[j]), j < n; y may be x. */
    void (*activate)(const activation *a, ptrdiff_t n, const void *x, void *y);

    /* One step without a tape: z [n, 4H] pre-activations, c [n, H] in place, h [n, H] written. */
    void (*cell_run)(const cell *k, ptrdiff_t n, const void *z, void *c, void *h);

    /* One step that keeps its tape; c [n, H] in place, h [n, H] written. */
    void (*cell_forward)(const cell *k, ptrdiff_t n, const step_tape *tape, void *c, void *h);

    /* The same step backward; c_prev [n, H] is the cell state that it started from. */
    void (*cell_backward)(const cell *k, ptrdiff_t n, const step_tape *tape, const void *c_prev,
                          const step_gradients *grad);

    /* h = o * tanh_c [n, H], for the projection's gradient. */
    void (*cell_output)(const cell *k, ptrdiff_t n, const step_tape *tape, void *h);
} kernels;

/* The names of the instruction sets compiled in that this CPU has, the best first; NULL ends. */
const char *const *cylstm_isas(void);

/* The table of one of them; NULL if it is not there. */
const kernels *cylstm_kernels(const char *isa, int is_double);

#endif
