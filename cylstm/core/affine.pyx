"""An affine map over many rows, y = x W' + b, forward and backward.

An output is one sum in one order, whatever rows are beside it and however many threads there are;
its bits depend on neither.
"""

cimport cython
cimport numpy as cnp
from libc.string cimport memcpy, memset

from cylstm.core.kernels cimport format_of, kernels, packed_matrix, packing, table
from cylstm.core.memory cimport (
    Spare,
    arena,
    check_array,
    end_arena,
    first_of,
    is_plain,
    take,
)
from cylstm.core.plan cimport convert_rows, copy_rows
from cylstm.core.products cimport (
    add_products,
    columns_of,
    end_outer,
    multiply_rows,
    new_outer,
    outer,
    pointers,
    product_workspace,
    share_begin,
    summed,
    sums_workspace,
)
from cylstm.core.team cimport VARIOUS, share, useful_threads
from cylstm.core.weights cimport (
    Copy,
    Kept,
    Version,
    current,
    new_matrix,
    pack_seldom,
    renewed,
    vectors_for,
)

from cylstm.core.kernels import ISA, PRODUCT

cnp.import_array()

cdef enum:
    ROWS = 192            # of a unit of work, forward and of the sums of backward,
    TILE_BYTES = 131072   # and weights of one, that its rows share: a part of the L2 cache
    INPUT_ROWS = 96       # of a unit of x's gradient
    OUTPUTS = 384         # of a unit of the sums, where
    SUMS_BYTES = 524288   # so many of their rows stay in the L2 cache
    SMALL = 100_000       # multiply-adds: a few microseconds, the GIL is kept for


cdef class PackedWeight(Copy):
    """Of an `Affine`'s weight."""

    cdef packed_matrix weight


cdef struct mapping:
    const kernels *kernel
    packed_matrix weight
    Py_ssize_t size, rows, inputs, outputs
    const char *x       # [rows, inputs]
    const char *bias    # NULL where the packed weight has it, or there is none
    char *y             # [rows, outputs]
    Py_ssize_t row_blocks, tiles_each, units
    char *memory        # each member's
    Py_ssize_t memory_each


cdef struct passing:
    summed sums         # of a block of rows
    outer weight
    packed_matrix transposed
    Py_ssize_t inputs, outputs, rows
    const char *x       # [rows, inputs]
    const char *grad_y  # [rows, outputs]
    char *grad_x        # [rows, inputs]
    char *grad_bias     # [outputs]; NULL for none
    Py_ssize_t shares   # of the sums,
    Py_ssize_t units    # then blocks of grad_x
    char *memory
    Py_ssize_t memory_each


cdef class Affine:
    """The map of a weight (outputs, inputs) and a bias (outputs,) or None.

    The arrays are shared with the caller, who lets nobody change them during a call.

    Parameters
    ----------
    weight, bias : array
    version : Version
        Of the two.
    scale : array (outputs,), optional
        Of a weight of int8; as that of `Cell`, it and one of bfloat16 do not train.
    """

    cdef object weight, bias, scale
    cdef Version version
    cdef const kernels *kernel
    cdef Py_ssize_t inputs, outputs, size
    cdef int typenum
    cdef dict copies  # of the weight, for x W' and for dy W
    cdef Spare spare  # memory of outputs and gradients, and of a workspace,
    cdef Py_ssize_t backward_peak  # which was last as large

    def __init__(self, weight, bias, Version version, *, scale=None, str isa=ISA,
                 str product=PRODUCT):
        self.weight, self.bias, self.version, self.scale = weight, bias, version, scale
        self.outputs, self.inputs = weight.shape
        self.typenum = cnp.NPY_DOUBLE if weight.dtype.itemsize == 8 else cnp.NPY_FLOAT
        self.size = 8 if self.typenum == cnp.NPY_DOUBLE else 4
        self.kernel = table(isa, format_of(weight.dtype), product)
        self.copies, self.spare = {}, Spare()

    def run(self, x):
        """y (rows, outputs) of x (rows, inputs), contiguous."""
        cdef Py_ssize_t rows = len(x)
        check_array(x, self.typenum, rows * self.inputs)
        y = self.spare.empty((rows, self.outputs), x.dtype)
        self.map(first_of(x), first_of(y), rows)
        return y

    def call(self, x):
        """The commonest case, fast: y (..., outputs) of an array (..., inputs) of at most
        three axes that needs no conversion; None of another."""
        cdef cnp.npy_intp shape[3]
        cdef int rank, k
        if not is_plain(x, self.typenum):
            return None
        rank = cnp.PyArray_NDIM(x)
        if not 1 <= rank <= 3 or cnp.PyArray_DIM(x, rank - 1) != self.inputs:
            return None
        for k in range(rank - 1):
            shape[k] = cnp.PyArray_DIM(x, k)
        shape[rank - 1] = self.outputs
        y = cnp.PyArray_EMPTY(rank, shape, self.typenum, 0)
        self.map(first_of(x), first_of(y), cnp.PyArray_SIZE(x) // self.inputs)
        return y

    cdef int map(self, const char *x, char *y, Py_ssize_t rows) except -1:
        cdef mapping m
        cdef Kept kept
        cdef arena memory
        cdef double total
        cdef int threads
        memset(&m, 0, sizeof(mapping))
        memset(&memory, 0, sizeof(arena))
        kept = self.packed(False)
        m.kernel, m.weight, m.size = self.kernel, (<PackedWeight> kept.copy).weight, self.size
        m.rows, m.outputs = rows, self.outputs
        m.x, m.y, m.inputs = x, y, self.inputs
        m.bias = first_of(self.bias) if m.weight.vectors == 1 else NULL
        total = <double> m.rows * self.inputs * self.outputs
        threads = useful_threads(total)
        divide_map(&m, threads)
        try:
            m.memory = take(&memory, threads * m.memory_each)
            if total < SMALL:
                share(1, <int> m.units, VARIOUS, take_map, &m)
            else:
                with nogil:
                    share(threads, <int> m.units, VARIOUS, take_map, &m)
        finally:
            end_arena(&memory)
        return 0

    def backward(self, x, grad_y):
        """The gradients of x, weight and bias, which is None where there is none."""
        cdef passing p
        cdef Kept kept
        cdef arena memory
        cdef cnp.npy_intp outputs
        cdef int threads
        cdef Py_ssize_t rows = len(x)
        check_array(x, self.typenum, rows * self.inputs)
        check_array(grad_y, self.typenum, rows * self.outputs)
        grad_x = self.spare.empty((rows, self.inputs), x.dtype)
        grad_weight = self.spare.empty((self.outputs, self.inputs), x.dtype)
        grad_bias = None
        if self.bias is not None:
            outputs = self.outputs
            grad_bias = cnp.PyArray_ZEROS(1, &outputs, self.typenum, 0)
        if rows == 0:
            grad_weight[...] = 0
            return grad_x, grad_weight, grad_bias
        memset(&p, 0, sizeof(passing))
        kept = self.packed(True)
        p.sums.kernel, p.sums.itemsize = self.kernel, self.size
        p.transposed = (<PackedWeight> kept.copy).weight
        p.inputs, p.outputs, p.rows = self.inputs, self.outputs, rows
        p.x, p.grad_y, p.grad_x = first_of(x), first_of(grad_y), first_of(grad_x)
        p.grad_bias = first_of(grad_bias)
        threads = useful_threads(2.0 * rows * self.inputs * self.outputs)
        _room = self.spare.begin_arena(&memory, self.backward_peak)
        try:
            divide_passing(&p, grad_weight, threads, &memory)
            with nogil:
                share(threads, <int> p.units, VARIOUS, take_passing, &p)
                end_outer(&p.sums, &p.weight)
        finally:
            self.backward_peak = end_arena(&memory)
        return grad_x, grad_weight, grad_bias

    cdef Kept packed(self, bint transposed):
        """The copy for now. The caller reads the parameters."""
        cdef Kept kept = current(self.copies, transposed, self.version)
        if kept is None:
            with cython.critical_section(self):  # as of a `Cell`
                kept = current(self.copies, transposed, self.version)
                if kept is None:
                    kept = renewed(self.copies, transposed, self.version, PackedWeight)
                    self.pack(transposed, kept.copy)
                    self.copies[transposed] = kept
        return kept

    cdef int pack(self, bint transposed, PackedWeight made) except -1:
        if transposed:
            return pack_seldom(self.kernel, self.size, made.memory, first_of(self.weight),
                               self.outputs, self.inputs, &made.weight)
        cdef int vectors = vectors_for(self.kernel, self.inputs, self.outputs)
        cdef packing how = packing(NULL, vectors, 0, self.outputs, self.inputs, self.inputs, 1,
                                   first_of(self.scale))
        cdef bint has_bias = self.bias is not None and vectors != 1
        if made.weight.weights == NULL:
            new_matrix(self.kernel, self.size, made.memory, &how, has_bias, 1, &made.weight)
        self.kernel.pack(&how, first_of(self.weight), first_of(self.bias) if has_bias else NULL,
                         &made.weight)
        return 0


# No Python from here on.


cdef void divide_map(mapping *m, int threads) noexcept nogil:
    """Blocks of tiles, for each of them blocks of rows."""
    cdef Py_ssize_t tile = columns_of(m.kernel, &m.weight) // m.weight.tiles
    cdef Py_ssize_t bytes = m.weight.depth * tile * m.kernel.weight_size
    m.tiles_each = max(1, min(m.weight.tiles, TILE_BYTES // bytes))
    m.row_blocks = max((m.rows + ROWS - 1) // ROWS, min(threads, m.rows))
    if m.row_blocks < threads:
        m.tiles_each = max(1, min(m.tiles_each, m.weight.tiles // threads))
    m.units = m.row_blocks * ((m.weight.tiles + m.tiles_each - 1) // m.tiles_each)
    m.memory_each = ROWS * tile * m.size
    if m.kernel.convert != NULL:
        m.memory_each += ROWS * row_of_inputs(m) * m.kernel.input_size


cdef inline Py_ssize_t row_of_inputs(const mapping *m) noexcept nogil:
    """How many a converted row has."""
    return m.kernel.header + m.weight.depth


cdef void take_map(void *given, int unit, int member) noexcept nogil:
    cdef mapping *m = <mapping *> given
    cdef Py_ssize_t tile = unit // m.row_blocks * m.tiles_each, block = unit % m.row_blocks
    map_rows(m, block * m.rows // m.row_blocks, (block + 1) * m.rows // m.row_blocks,
             tile, min(tile + m.tiles_each, m.weight.tiles), m.memory + member * m.memory_each)


cdef void map_rows(const mapping *m, Py_ssize_t first, Py_ssize_t last, Py_ssize_t tile,
                   Py_ssize_t end, char *memory) noexcept nogil:
    """For rows [first, last), the outputs of tiles [tile, end); of one that is not whole by way
    of the memory."""
    cdef:
        Py_ssize_t width = columns_of(m.kernel, &m.weight) // m.weight.tiles, size = m.size, j
        Py_ssize_t rest = m.outputs % width, row = m.outputs * size, n = last - first
        bint is_rest = rest and end == m.weight.tiles
        Py_ssize_t x_row = m.inputs
        const char *x = m.x + first * x_row * size
        char *y = m.y + first * row
        char *inputs
        packed_matrix one = m.weight
    if m.kernel.convert != NULL:
        inputs, x_row = memory + ROWS * width * size, row_of_inputs(m)
        convert_rows(m.kernel, n, m.inputs, x, m.inputs * size, 0, 0, inputs, x_row)
        x = inputs
    if is_rest:
        end -= 1
    if m.bias != NULL:
        for j in range(n):
            memcpy(y + j * row + tile * width * size, m.bias + tile * width * size,
                   (end - tile) * width * size)
    if tile < end:
        m.kernel.multiply(&m.weight, n, x, x_row, y, m.outputs, tile, end, False, m.bias != NULL)
    if not is_rest:
        return
    one.tiles = 1
    one.weights = <const char *> one.weights + end * one.tile_step * m.kernel.weight_size
    if one.bias != NULL:
        one.bias = <const char *> one.bias + end * width * size
    if one.scales != NULL:
        one.scales = <const char *> one.scales + end * width * size
        one.starts = <const char *> one.starts + end * width * size
    if m.bias != NULL:
        for j in range(n):
            memcpy(memory + j * width * size, m.bias + end * width * size, rest * size)
    m.kernel.multiply(&one, n, x, x_row, memory, width, 0, 1, False, m.bias != NULL)
    copy_rows(n, rest * size, memory, width * size, y + end * width * size, row)


cdef int divide_passing(passing *p, grad_weight, int threads, arena *memory) except -1:
    cdef Py_ssize_t block = min(p.rows, ROWS), size = p.sums.itemsize
    new_outer(&p.sums, &p.weight, grad_weight,
              pointers(p.grad_y, p.outputs * size, p.rows, memory),
              pointers(p.x, p.inputs * size, p.rows, memory), memory)
    p.shares = 1 if threads == 1 else 4 * threads
    if OUTPUTS * p.inputs * size <= SUMS_BYTES:
        p.shares = max(p.shares, (p.outputs + OUTPUTS - 1) // OUTPUTS)
    p.units = p.shares + max((p.rows + INPUT_ROWS - 1) // INPUT_ROWS, min(threads, p.rows))
    p.memory_each = max(sums_workspace(&p.sums, block, p.outputs),
                        product_workspace(&p.sums, &p.transposed))
    p.memory_each = (p.memory_each + 63) // 64 * 64
    p.memory = take(memory, threads * p.memory_each)
    return 0


cdef void take_passing(void *given, int unit, int member) noexcept nogil:
    cdef:
        passing *p = <passing *> given
        Py_ssize_t blocks = p.units - p.shares, first, last, size = p.sums.itemsize
        char *memory = p.memory + member * p.memory_each
    if unit < p.shares:
        add_sums(p, unit, memory)
        return
    first = (unit - p.shares) * p.rows // blocks
    last = (unit - p.shares + 1) * p.rows // blocks
    multiply_rows(&p.sums, &p.transposed, last - first,
                  p.grad_y + first * p.outputs * size, p.outputs * size,
                  p.grad_x + first * p.inputs * size, p.inputs, False, memory)


cdef void add_sums(const passing *p, Py_ssize_t part, char *memory) noexcept nogil:
    """A part of the outputs: their rows of the weight's gradient, and the bias's."""
    cdef:
        summed sums = p.sums
        outer o = p.weight
        Py_ssize_t first = 0, j, size = sums.itemsize, tile = 4 * sums.kernel.width
        Py_ssize_t begin = share_begin(p.outputs, tile, part, p.shares)
        Py_ssize_t end = share_begin(p.outputs, tile, part + 1, p.shares)
    if begin == end:
        return
    while first < p.rows:
        sums.rows, sums.adds = min(ROWS, p.rows - first), first > 0
        o.a, o.b = p.weight.a + first, p.weight.b + first
        add_products(&sums, &o, 1, part, p.shares, memory)
        if p.grad_bias != NULL:
            for j in range(first, first + sums.rows):
                sums.kernel.add(end - begin, p.grad_y + (j * p.outputs + begin) * size,
                                p.grad_bias + begin * size)
        first += ROWS
