/* Where in a packed tile its vectors lie; the includer defines TOGETHER. */
#ifndef CYLSTM_HALVES_H
#define CYLSTM_HALVES_H

/* From a tile's first two vectors to the others, and from a k, or TOGETHER k's, to the next. */
INLINE ptrdiff_t half_step_of(int vectors, const packed_matrix *w) {
    return APART && vectors == 4 ? w->half_step : 2 * VLEN * TOGETHER;
}
INLINE ptrdiff_t packed_k_step(int vectors) {
    return (APART && vectors == 4 ? 2 : vectors) * VLEN * TOGETHER;
}

/* Of a k, vector q. */
INLINE ptrdiff_t vector_at(ptrdiff_t half_step, int q) {
    return q / 2 * half_step + q % 2 * VLEN * TOGETHER;
}

#endif
