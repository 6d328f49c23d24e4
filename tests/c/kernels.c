/* The tables of kernels against sums in double precision. */
#include "kernels.h"
#include "check.h"
#include "platform/memory.h"

#include <math.h>
#include <string.h>

static const ptrdiff_t SIZES[] = {1, 3, 4, 16, 37};
enum { INPUTS = 5, MOST_ROWS_AT_ONCE = 7 };

/* Reals of a table's dtype, by number. */

static double number_at(const void *array, ptrdiff_t at, int is_double) {
    return is_double ? ((const double *)array)[at] : (double)((const float *)array)[at];
}

static void put(void *array, ptrdiff_t at, double x, int is_double) {
    if (is_double)
        ((double *)array)[at] = x;
    else
        ((float *)array)[at] = (float)x;
}

static void *reals(ptrdiff_t n, int is_double) {
    void *made = cylstm_allocate((n + 1) * (is_double ? 8 : 4));
    for (ptrdiff_t j = 0; j < n; j++) put(made, j, 0, is_double);
    return made;
}

static void *drawn_reals(ptrdiff_t n, uint64_t *seed, int is_double) {
    void *made = reals(n, is_double);
    for (ptrdiff_t j = 0; j < n; j++) put(made, j, drawn(seed), is_double);
    return made;
}

static int near(double a, double b, int is_double) {
    return fabs(a - b) <= (is_double ? 1e-12 : 2e-5) * (1 + fabs(b));
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void check_activations(const kernels *k, int is_double) {
    static const struct {
        activation a;
        double (*exact)(double);
    } known[] = {{{SIGMOID, 0, 0}, sigmoid}, {{TANH, 0, 0}, tanh}};
    uint64_t seed = 1;
    enum { N = 37 };
    void *x = drawn_reals(N, &seed, is_double), *y = reals(N, is_double);
    for (int j = 0; j < N; j++) put(x, j, 9 * number_at(x, j, is_double), is_double);
    for (int f = 0; f < 2; f++) {
        k->activate(&known[f].a, N, x, y);
        for (int j = 0; j < N; j++) {
            const double exact = known[f].exact(number_at(x, j, is_double));
            CHECK(near(number_at(y, j, is_double), exact, is_double), "%s: f %d at %d", k->isa, f,
                  j);
        }
    }
    cylstm_release(x), cylstm_release(y);
}

/* Memory for what `how` packs. */
static packed_matrix new_packed(const kernels *k, const packing *how, int is_double) {
    packed_matrix w;
    memset(&w, 0, sizeof w);
    const ptrdiff_t tile = (ptrdiff_t)how->vectors * k->width, together = k->together;
    w.vectors = how->vectors, w.tiles = k->packed_tiles(how);
    w.depth = w.first = (how->depth + together - 1) / together * together;
    w.tile_step = w.depth * tile, w.k_step = tile * together;
    w.half_step = 2 * k->width * together;
    if (k->halves && w.vectors == 4) w.k_step = w.half_step, w.half_step = w.tile_step / 2;
    const ptrdiff_t sums = w.tiles * 4 * k->width;
    w.weights = cylstm_allocate(w.tiles * tile * w.depth * k->weight_size);
    w.bias = reals(sums, is_double);
    w.scales = reals(sums, is_double), w.starts = reals(sums, is_double);
    return w;
}

static void release(const packed_matrix *w) {
    cylstm_release((void *)w->weights), cylstm_release((void *)w->bias);
    cylstm_release((void *)w->scales), cylstm_release((void *)w->starts);
}

static void check_product(const kernels *k, int is_double, ptrdiff_t outputs, ptrdiff_t depth) {
    uint64_t seed = 2;
    const packing how = {NULL, 4, 0, outputs, depth, depth, 1, NULL};
    packed_matrix w = new_packed(k, &how, is_double);
    const ptrdiff_t z_row = w.tiles * 4 * k->width;
    void *matrix = drawn_reals(outputs * depth, &seed, is_double);
    void *bias = drawn_reals(outputs, &seed, is_double);
    void *x = drawn_reals(MOST_ROWS_AT_ONCE * depth, &seed, is_double);
    void *z = reals(MOST_ROWS_AT_ONCE * z_row, is_double);
    k->pack(&how, matrix, bias, &w);
    for (ptrdiff_t n = 1; n <= MOST_ROWS_AT_ONCE; n++) {
        k->multiply(&w, n, x, depth, z, z_row, 0, w.tiles, n % 2, 0);
        for (ptrdiff_t row = 0; row < n; row++)
            for (ptrdiff_t j = 0; j < outputs; j++) {
                double sum = number_at(bias, j, is_double);
                for (ptrdiff_t i = 0; i < depth; i++)
                    sum += number_at(x, row * depth + i, is_double) *
                           number_at(matrix, j * depth + i, is_double);
                CHECK(near(number_at(z, row * z_row + j, is_double), sum, is_double),
                      "%s: %d rows, output %d of %d", k->isa, (int)n, (int)j, (int)outputs);
            }
    }
    release(&w);
    cylstm_release(matrix), cylstm_release(bias), cylstm_release(x), cylstm_release(z);
}

/* Of few bits, on numbers that they hold exactly: so are the sums. */
static void check_short_product(const kernels *k, format weights, ptrdiff_t outputs,
                                ptrdiff_t depth) {
    uint64_t seed = 3;
    float scales[64], x[64 * MOST_ROWS_AT_ONCE];
    int8_t integers[64 * 64];
    uint16_t halves[64 * 64];
    const packing how = {NULL, 4, 0, outputs, depth, depth, 1, scales};
    packed_matrix w = new_packed(k, &how, 0);
    const ptrdiff_t z_row = w.tiles * 4 * k->width, x_row = k->header + w.depth;
    float *z = reals(MOST_ROWS_AT_ONCE * z_row, 0);
    char *rows = cylstm_allocate(MOST_ROWS_AT_ONCE * x_row * k->input_size);
    for (ptrdiff_t j = 0; j < outputs; j++) scales[j] = 0.5;
    for (ptrdiff_t j = 0; j < outputs * depth; j++) {
        const float exact = (float)(integers[j] = (int8_t)(120 * drawn(&seed)));
        uint32_t bits;
        memcpy(&bits, &exact, sizeof bits);
        halves[j] = (uint16_t)(bits >> 16);
    }
    for (ptrdiff_t j = 0; j < MOST_ROWS_AT_ONCE * depth; j++)
        x[j] = j % depth ? (float)(int)(120 * drawn(&seed)) : 127; /* its scale is 1 */
    k->pack(&how, weights == INT8 ? (void *)integers : (void *)halves, NULL, &w);
    for (ptrdiff_t n = 1; n <= MOST_ROWS_AT_ONCE; n++) {
        for (ptrdiff_t row = 0; row < n; row++)
            k->convert(depth, x + row * depth, 0, 0, rows + row * x_row * k->input_size);
        k->multiply(&w, n, rows, x_row, z, z_row, 0, w.tiles, 0, 0);
        for (ptrdiff_t row = 0; row < n; row++)
            for (ptrdiff_t j = 0; j < outputs; j++) {
                float sum = 0;
                for (ptrdiff_t i = 0; i < depth; i++)
                    sum += x[row * depth + i] * (float)integers[j * depth + i];
                if (weights == INT8) sum *= 0.5f;
                CHECK(z[row * z_row + j] == sum, "%s: %d rows, output %d of %d: %g, not %g", k->isa,
                      (int)n, (int)j, (int)outputs, (double)z[row * z_row + j], (double)sum);
            }
    }
    release(&w);
    cylstm_release(z), cylstm_release(rows);
}

/* One step of a cell of H units, of n sequences. */
typedef struct {
    const double *x, *h, *c; /* of a sequence: [INPUTS], [H], [H] */
    const double *w_x, *w_h; /* [gates H, INPUTS], [gates H, H] */
    const double *bias;      /* [sums H] */
    ptrdiff_t hidden;
} exact_step;

static double exact_sum(const exact_step *s, int x_gate, int h_gate, int sum, ptrdiff_t unit) {
    double total = s->bias[sum * s->hidden + unit];
    if (x_gate >= 0)
        for (ptrdiff_t j = 0; j < INPUTS; j++)
            total += s->w_x[(x_gate * s->hidden + unit) * INPUTS + j] * s->x[j];
    if (h_gate >= 0)
        for (ptrdiff_t j = 0; j < s->hidden; j++)
            total += s->w_h[(h_gate * s->hidden + unit) * s->hidden + j] * s->h[j];
    return total;
}

/* h of a unit, and its c. */
static double exact_h(const exact_step *s, cell_kind kind, ptrdiff_t unit, double *c) {
    double z[4];
    const cell_sums *sums = &cylstm_sums[kind];
    for (int q = 0; q < sums->sums; q++) z[q] = exact_sum(s, sums->x[q], sums->h[q], q, unit);
    if (kind == RNN) return tanh(z[0]);
    if (kind == GRU) {
        const double r = sigmoid(z[1]), kept = sigmoid(z[2]);
        return (1 - kept) * tanh(z[0] + r * z[3]) + kept * s->h[unit];
    }
    *c = sigmoid(z[1]) * s->c[unit] + sigmoid(z[0]) * tanh(z[2]);
    return sigmoid(z[3]) * tanh(*c);
}

static void check_step(const kernels *k, int is_double, cell_kind kind, ptrdiff_t hidden,
                       ptrdiff_t n) {
    uint64_t seed = 4;
    const cell_sums *sums = &cylstm_sums[kind];
    const ptrdiff_t depth = INPUTS + hidden, rows = sums->gates * hidden;
    double w_x[4 * 64 * INPUTS], w_h[4 * 64 * 64], bias[4 * 64], x[INPUTS], h[64], c[64];
    cell equations;
    memset(&equations, 0, sizeof equations);
    equations.hidden = hidden, equations.clip = HUGE_VAL;
    equations.gates.kind = SIGMOID;
    equations.candidate.kind = equations.output.kind = TANH;

    packing how = {NULL, 4, 0, hidden, depth, INPUTS, 1, NULL};
    if (sums->tile == 1) how.gates = sums->x, how.vectors = sums->gates;
    packed_matrix w = new_packed(k, &how, is_double), of_x = w, of_h = w;
    w.first = of_x.depth = how.depth = INPUTS;
    of_h.depth = hidden, of_h.bias = NULL;
    of_h.weights = (const char *)w.weights + INPUTS * w.k_step * k->weight_size;
    void *all_x = drawn_reals(rows * INPUTS, &seed, is_double);
    void *all_h = drawn_reals(rows * hidden, &seed, is_double);
    void *all_bias = drawn_reals(sums->sums * hidden, &seed, is_double);
    k->pack(&how, all_x, all_bias, &of_x);
    how.depth = how.row_step = hidden;
    if (how.gates) how.at = sums->first_of_h, how.gates = sums->h + how.at;
    k->pack(&how, all_h, NULL, &of_h);
    for (ptrdiff_t j = 0; j < rows * INPUTS; j++) w_x[j] = number_at(all_x, j, is_double);
    for (ptrdiff_t j = 0; j < rows * hidden; j++) w_h[j] = number_at(all_h, j, is_double);
    for (ptrdiff_t j = 0; j < sums->sums * hidden; j++)
        bias[j] = number_at(all_bias, j, is_double);

    const ptrdiff_t row = w.tiles * sums->tile * k->width;
    void *v = drawn_reals(n * depth, &seed, is_double), *new_c = reals(n * row, is_double);
    void *old_c = drawn_reals(n * row, &seed, is_double), *new_h = reals(n * row, is_double);
    for (ptrdiff_t r = 0; r < n; r++)
        for (ptrdiff_t j = 0; j < hidden; j++) { /* without a c it is h that is read there */
            const void *from = sums->has_c ? old_c : v;
            const ptrdiff_t at = sums->has_c ? r * row + j : r * depth + INPUTS + j;
            put(new_c, r * row + j, number_at(from, at, is_double), is_double);
        }
    packed_step s;
    memset(&s, 0, sizeof s);
    s.v = v, s.c = new_c, s.h = new_h;
    s.v_row = depth, s.c_row = s.h_row = row;
    k->cells[kind].step(&equations, &w, n, &s, 0, w.tiles);

    for (ptrdiff_t r = 0; r < n; r++) {
        const exact_step exact = {x, h, c, w_x, w_h, bias, hidden};
        for (ptrdiff_t j = 0; j < INPUTS; j++) x[j] = number_at(v, r * depth + j, is_double);
        for (ptrdiff_t j = 0; j < hidden; j++) {
            h[j] = number_at(v, r * depth + INPUTS + j, is_double);
            c[j] = number_at(old_c, r * row + j, is_double);
        }
        for (ptrdiff_t j = 0; j < hidden; j++) {
            double its_c = 0;
            const double its_h = exact_h(&exact, kind, j, &its_c);
            CHECK(near(number_at(new_h, r * row + j, is_double), its_h, is_double),
                  "%s: cell %d, h of unit %d of %d, row %d of %d", k->isa, (int)kind, (int)j,
                  (int)hidden, (int)r, (int)n);
            CHECK(!sums->has_c || near(number_at(new_c, r * row + j, is_double), its_c, is_double),
                  "%s: c of unit %d of %d, row %d of %d", k->isa, (int)j, (int)hidden, (int)r,
                  (int)n);
        }
    }
    release(&w);
    cylstm_release(all_x), cylstm_release(all_h), cylstm_release(all_bias), cylstm_release(v);
    cylstm_release(new_c), cylstm_release(old_c), cylstm_release(new_h);
}

static void check_training(const kernels *k, int is_double) {
    uint64_t seed = 5;
    enum { N = 13, M = 21 };
    void *a = drawn_reals(N * M, &seed, is_double), *b = reals(N * M, is_double);
    void *added = reals(N * M, is_double);
    double squares = 0;
    k->transpose(N, M, a, M, b, N);
    for (int j = 0; j < N * M; j++) {
        const double x = number_at(a, j, is_double);
        squares += x * x;
        CHECK(number_at(b, j % M * N + j / M, is_double) == x, "%s: transposed %d", k->isa, j);
    }
    CHECK(near(k->sum_of_squares(N * M, a), squares, is_double), "%s", k->isa);
    k->scale(N * M, 2, b);
    for (int times = 0; times < 2; times++) k->add(N * M, b, added);
    const update_rule plain = {.rate = 0.5, .correction = 1};
    void *parameter = reals(N * M, is_double);
    k->sgd(&plain, N * M, parameter, a, NULL, NULL);
    for (int j = 0; j < N * M; j++) {
        const double x = number_at(a, j, is_double);
        CHECK(number_at(added, j % M * N + j / M, is_double) == 4 * x, "%s: added %d", k->isa, j);
        CHECK(number_at(parameter, j, is_double) == -0.5 * x, "%s: changed %d", k->isa, j);
    }
    cylstm_release(a), cylstm_release(b), cylstm_release(added), cylstm_release(parameter);
}

void check_kernels(void) {
    const char *const *isas = cylstm_isas();
    const int count = (int)(sizeof SIZES / sizeof *SIZES);
    CHECK(isas[0] != NULL, "no instruction set");
    for (; *isas; isas++) {
        printf("%s\n", *isas);
        for (int is_double = 0; is_double < 2; is_double++) {
            const kernels *k = cylstm_kernels(*isas, is_double ? FLOAT64 : FLOAT32, 0);
            check_activations(k, is_double);
            check_training(k, is_double);
            for (int j = 0; j < count; j++) {
                check_product(k, is_double, SIZES[j], SIZES[count - 1 - j]);
                for (int kind = LSTM; kind <= RNN; kind++)
                    for (ptrdiff_t n = 1; n <= MOST_ROWS_AT_ONCE; n += 2)
                        check_step(k, is_double, (cell_kind)kind, SIZES[j], n);
            }
        }
        for (int j = 0; j < count; j++) {
            check_short_product(cylstm_kernels(*isas, INT8, 0), INT8, SIZES[j], 37);
            check_short_product(cylstm_kernels(*isas, BFLOAT16, 0), BFLOAT16, SIZES[j], 33);
        }
    }
    CHECK(cylstm_kernels("mmx", FLOAT32, 0) == NULL, "a set that is not there");
}
