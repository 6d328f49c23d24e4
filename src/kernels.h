/* The C interface of the kernels: one table of functions per (instruction set, format, product).
 *
 * Every `void *` array holds reals of the table's dtype, row-major, but where weights and the rows
 * that meet them have another format: then such a row is one of what `convert` makes. Shapes are in
 * brackets: n rows (the sequences that are advanced together), H hidden units; of each a cell has some
 * sums, which are side by side in a row: an LSTM's [n, 4H] in the order i, f, g, o. Arrays that are
 * written overlap no other argument, unless said.
 */
#ifndef CYLSTM_KERNELS_H
#define CYLSTM_KERNELS_H

#include <stddef.h>

typedef enum { SIGMOID, TANH, RELU, HARD_SIGMOID } activation_kind;

typedef struct {
    activation_kind kind;
    double slope, offset; /* hard_sigmoid(x) = min(1, max(0, slope x + offset)) */
} activation;

/* How the sums of a cell come from the gates that its weights have, H rows of each. */
typedef enum { LSTM, GRU, RNN } cell_kind;

typedef struct {
    int gates, sums;
    int taped;              /* numbers of a unit on the tape: the sums, activated, and c and tanh_c */
    int has_c;              /* whether the state is h and c, not h alone */
    int tile;               /* vectors of units in a tile: 4 where there is one sum for each, else 1 */
    int common;             /* as many of the first gates are in the same sums for x and h, */
    int common_sum;         /* from this one on; if there is another gate, */
    int x_sum, h_sum;       /* its sums for x and for h */
    int first_of_h;         /* the first sum that h is in */
    signed char x[4], h[4]; /* the gate of each sum; -1: it has none */
} cell_sums;

/* i, f, g, o of an LSTM; n's share of x, r, z, and its share of h of a GRU, which has r, z, n. */
static const cell_sums cylstm_sums[] = {
    [LSTM] = {4, 4, 6, 1, 1, 4, 0, 0, 0, 0, {0, 1, 2, 3}, {0, 1, 2, 3}},
    [GRU] = {3, 4, 4, 0, 1, 2, 1, 0, 3, 1, {2, 0, 1, -1}, {-1, 0, 1, 2}},
    [RNN] = {1, 1, 0, 0, 4, 1, 0, 0, 0, 0, {0}, {0}},
};

/* What the equations of one layer and direction need to know beside their arrays. */
typedef struct {
    ptrdiff_t hidden;                   /* H */
    activation gates, candidate, output; /* an RNN has the second alone, a GRU the first two */
    int coupled;                        /* f = 1 - i */
    double clip;                        /* bound of the pre-activations, infinity for none */
    const void *peephole;               /* [3H]: i, f, o; NULL for none */
} cell;

/* What one forward step leaves for the backward pass: the step's rows of the tape. */
typedef struct {
    void *gates;   /* [n, sums H]: the activated sums, but the GRU's last as it is */
    void *c;       /* [n, H]; for backward of an RNN h */
    void *tanh_c;  /* [n, H]: the output activation of c */
    ptrdiff_t gates_row, c_row; /* distances of rows, the second of c and tanh_c */
} step_tape;

/* The gradients that one backward step reads and writes. */
typedef struct {
    const void *h; /* [n, H]: of the cell's output, before any projection, */
    const void *y; /* [n, H]: to which this is added; NULL for nothing */
    void *c;       /* [n, H]: of c_t going in, of c_{t-1} coming out; of a GRU what comes to h_t, and
                      goes to h_{t-1}, past the products */
    void *z;       /* [n, sums H], written: of the pre-activations */
    ptrdiff_t h_row, y_row, c_row, z_row;
} step_gradients;

/* How a matrix [outputs, depth] is packed for products; see src/product.h. */
typedef struct {
    const signed char *gates;      /* if its rows are gates of `outputs` units each: that of each vector
                                      of a tile, -1 for weights of zero; else NULL */
    int vectors;                   /* in a tile, for a k: 4; 3 of a GRU's gates; or 1: `narrow` */
    int at;                        /* the first of a tile's vectors of sums that they are for */
    ptrdiff_t outputs, depth;
    ptrdiff_t row_step, k_step;    /* distances in the matrix; a transpose swaps them */
    const void *scales;            /* of the matrix's rows, reals, if the format has them */
} packing;

typedef struct {
    int vectors;
    ptrdiff_t tiles, depth;        /* the depth of a format with `together` is a multiple of that */
    ptrdiff_t tile_step, k_step;   /* weights from a tile to the next, and from a k; of four vectors */
    ptrdiff_t half_step;           /* from the first two to the others: a matrix [depth, outputs] of
                                      whole tiles can be taken as it lies */
    const void *weights;           /* [tiles, depth, vectors, width], or with the table's `halves`
                                      [tiles, 2, depth, 2, width]; better aligned as vectors are */
    const void *bias;              /* [tiles, 4, width], or NULL for zero; narrow ones have none */
    ptrdiff_t first;               /* of the depth, the first part: x's, or all */
    const void *scales, *starts;   /* [parts, tiles, 4, width], for formats that have them */
} packed_matrix;

/* What one step with packed weights reads and writes; rows of c and h are padded to whole tiles (whose
 * width of an RNN is that of 4 vectors). */
typedef struct {
    const void *v;                 /* [n, depth]: x_t and h_{t-1} side by side, or h_{t-1} alone,
                                      converted if the format says so; */
    void *z;                       /* then with x's share of the pre-activations [n, tiles, 4, width],
                                      a workspace; else NULL: the sums begin from the bias */
    const ptrdiff_t *z_rows;       /* [n]: which row of z is whose, and z is read alone, not by BLAS;
                                      NULL: row j is j's */
    void *c;                       /* [n, tiles * width], in place; without c h_{t-1}, which is read */
    void *h;                       /* [n, tiles * width], written */
    void *y;                       /* its rows [H] written also here, or NULL */
    const ptrdiff_t *y_rows;       /* [n]: row j of y is y + y_rows[j] * y_row */
    const step_tape *tape;         /* written; NULL for none */
    ptrdiff_t v_row, z_row, c_row, h_row, y_row;
    int down;                      /* whether to sweep the tiles from the last to the first */
} packed_step;

/* What an optimizer's update of a parameter is made with; each has some of it. */
typedef struct {
    double rate;          /* of learning; Adam's with the correction of the mean's bias, */
    double correction;    /* and that of the root of the mean square's */
    double momentum;      /* what the velocity keeps */
    int nesterov;
    double mean, square;  /* what the running means keep */
    double eps;
    double decay, shrink; /* what part of the parameter its gradient grows by; what part is kept */
} update_rule;

/* Of n numbers of a parameter, by their gradient and what is kept for them: by sgd the velocity, by
 * adam mean and square, by rmsprop square and velocity. A velocity may be NULL for none. */
typedef void update(const update_rule *rule, ptrdiff_t n, void *parameter, const void *gradient,
                    void *first, void *second);

/* The functions of one kind of cell. */
typedef struct {
    /* One step for the hidden units of tiles [from, to): v w, then the cell. The weights are packed. */
    void (*step)(const cell *k, const packed_matrix *w, ptrdiff_t n, const packed_step *s,
                 ptrdiff_t from, ptrdiff_t to);

    /* One step's cell backward, for units [from, to), `from` a multiple of width; c_prev [n, H] is the
       cell state that it started from, or h_{t-1} where there is no c. */
    void (*backward)(const cell *k, ptrdiff_t n, const step_tape *tape, const void *c_prev,
                     ptrdiff_t c_prev_row, const step_gradients *grad, ptrdiff_t from,
                     ptrdiff_t to);

    /* Adds the sums over n rows of z's gradient [n, sums H] to the bias's [sums H], and, where there
       are peepholes, their gradient to `peephole` [3H], else NULL; for units [from, to) as above. */
    void (*sum_gradients)(const cell *k, ptrdiff_t n, const step_tape *tape, const void *c_prev,
                          ptrdiff_t c_prev_row, const void *z, ptrdiff_t z_row, void *bias,
                          void *peephole, ptrdiff_t from, ptrdiff_t to);
} cell_kernels;

typedef struct {
    const char *isa;
    int width; /* reals in a vector */
    int group; /* columns that add_outer takes at once */
    int halves; /* whether packed tiles of four vectors are two after two: weights are then read once for
                   twice as many rows, from caches that are too far away to be read as fast as wanted */
    int flat;  /* whether packed weights are one matrix [depth, tiles * 4 * width], which products by
                  BLAS want, and none narrow; a step then takes z, never the bias */
    int together; /* of an output's weights, how many lie side by side where a k is said to be: 1, */
    int weight_size, input_size; /* bytes of one, and of one in a row that it is multiplied with; */
    int header;   /* and inputs' worth of what such a row begins with */

    /* Converts n reals into those from `at` on of a row [header + depth] that products take, and zeros
       to a multiple of `together`; they are the row's part 0, or 1. NULL: products take reals. */
    void (*convert)(ptrdiff_t n, const void *x, int part, ptrdiff_t at, void *row);

    /* y[j] = a(x[j]), j < n; y may be x. */
    void (*activate)(const activation *a, ptrdiff_t n, const void *x, void *y);

    /* to[j] += x[j], j < n. */
    void (*add)(ptrdiff_t n, const void *x, void *to);

    /* h = o * tanh_c [n, H], for the projection's gradient. */
    void (*cell_output)(const cell *k, ptrdiff_t n, const step_tape *tape, void *h);

    /* How many tiles the packed matrix has, and the packing; a NULL bias is zero. */
    ptrdiff_t (*packed_tiles)(const packing *p);
    void (*pack)(const packing *p, const void *matrix, const void *bias,
                 const packed_matrix *to);

    /* z[n, tiles, 4 or 1, width] = bias + x[n, depth] w or, with `adds`, += x w, for tiles [from, to),
       in one order or, with `down`, in the other. */
    void (*multiply)(const packed_matrix *w, ptrdiff_t n, const void *x, ptrdiff_t x_row, void *z,
                     ptrdiff_t z_row, ptrdiff_t from, ptrdiff_t to, int down, int adds);

    /* Columns [first, first + m) of a matrix, by pointers to its n rows, in groups of `group` columns,
       the last perhaps smaller: to[groups, n or n + 1, group]. */
    void (*pack_columns)(ptrdiff_t n, ptrdiff_t first, ptrdiff_t m, const void *const *from,
                         void *to);

    /* c[m, n] = a' b over rows, or with `adds` +=, for a's columns as packed and columns
       [first, first + n) of b. Rows of c are padded to whole tiles of 4 width; `tile` is a workspace
       of so many for each row. */
    void (*add_outer)(ptrdiff_t rows, ptrdiff_t m, ptrdiff_t n, const void *a,
                      const void *const *b, ptrdiff_t first, void *c, ptrdiff_t c_row, int adds,
                      void *tile);

    /* to[m, n] := from' for from [n, m]. */
    void (*transpose)(ptrdiff_t n, ptrdiff_t m, const void *from, ptrdiff_t from_row, void *to,
                      ptrdiff_t to_row);

    /* For n rows of logits [n, classes] the losses, -log softmax(logits)[label], and `each` times their
       gradient; zero for a label of -1. */
    void (*cross_entropy)(ptrdiff_t n, ptrdiff_t classes, const void *logits,
                          const ptrdiff_t *labels, double each, void *gradient, double *losses);

    /* Rows of n numbers, some reals apart, become softmax(by x), in place; and, in place, the gradients
       of such rows y become those of x. */
    void (*softmax)(ptrdiff_t rows, ptrdiff_t n, double by, void *x, ptrdiff_t x_row);
    void (*softmax_gradient)(ptrdiff_t rows, ptrdiff_t n, double by, const void *y, ptrdiff_t y_row,
                             void *gradient, ptrdiff_t gradient_row);

    update *sgd, *adam, *rmsprop;
    double (*sum_of_squares)(ptrdiff_t n, const void *x);
    void (*scale)(ptrdiff_t n, double by, void *x); /* x *= by */

    cell_kernels cells[3]; /* by kind */
} kernels;

/* Of weights. The first two train; the others' tables have only what inference takes, and cells of
 * floats. */
typedef enum { FLOAT32, FLOAT64, BFLOAT16, INT8 } format;

/* The names of the instruction sets compiled in that this CPU has, the best first; NULL ends. For one
 * thread at a time. */
const char *const *cylstm_isas(void);

/* The table of one of them, with our own products or BLAS's, which train; NULL if it is not there. */
const kernels *cylstm_kernels(const char *isa, format weights, int by_blas);

/* BLAS's product of floats, and of doubles: c[m, n] += a[m, k] b[k, n]. Whoever has a BLAS sets them
 * before a table by BLAS is used. */
typedef void (*add_product)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const void *a, ptrdiff_t a_row,
                            const void *b, ptrdiff_t b_row, void *c, ptrdiff_t c_row);
extern add_product cylstm_add_product[2];

#endif
