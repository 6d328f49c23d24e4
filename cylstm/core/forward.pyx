"""The recurrence: the time loop, with or without a tape.

On sequences as they lie in the caller's arrays::

    h_t, c_t = step([x_t, h_{t-1}])      product and gate equations in one kernel
    h_t = h_t W_hr'                      with a projection

With few sequences the weights' way to the registers is what limits, and x's share of the product is
taken out of the loop, where a block of steps shares the weights::

    z_t = b + x_t W_ih'
    h_t, c_t = step(z_t, h_{t-1})

Where x_t is one of a few vectors, z_t is there already: `cylstm.core.lookup`.

Where there is a tape it keeps the gates, c and its output activation, of each step, for
`cylstm.core.backward`. What a task is, and who does it, `cylstm.core.plan` says. There is no Python
in this file.
"""

from libc.string cimport memcpy, memset

from cylstm.core.kernels cimport packed_step, step_tape
from cylstm.core.plan cimport (
    ROWS_ALIKE,
    convert_rows,
    copy_rows,
    rows_between,
    tape_from,
    task,
    work,
)
from cylstm.core.team cimport (
    ALIKE,
    VARIOUS,
    advance,
    await_progress,
    meet,
    sameness,
    share,
    wait_for_team,
)


cdef inline Py_ssize_t size_at(const task *t, Py_ssize_t step) noexcept nogil:
    return t.most if t.sizes == NULL else t.sizes[step]


cdef inline const char *x_at(const task *t, Py_ssize_t step) noexcept nogil:
    return t.x + (t.begins[step] * t.x_row if t.begins != NULL else step * t.x_step)


cdef inline void scatter_rows(const task *t, Py_ssize_t n, const char *rows, Py_ssize_t row,
                              char *y) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        memcpy(y + t.order[j] * t.y_row, rows + j * row, t.outputs * t.itemsize)


cdef void gather_rows(const task *t, Py_ssize_t first, Py_ssize_t last, int member,
                      int team) noexcept nogil:
    """x_block := the running rows of steps [first, last), converted if products want it; of them a
    member's."""
    cdef Py_ssize_t step, j, number = 0
    cdef const char *x
    cdef char *to = t.x_block
    for step in range(first, last):
        for j in range(size_at(t, step)):
            if number % team == member:
                x = x_at(t, step) + t.order[j] * t.x_row
                if t.converts:
                    t.kernel.convert(t.inputs, x, 0, 0, to)
                else:
                    memcpy(to, x, t.inputs * t.itemsize)
            number += 1
            to += t.x_width * t.kernel.input_size


cdef inline step_tape tape_at(const task *t, Py_ssize_t step) noexcept nogil:
    """A step's rows of the tape: those of its share lie as far apart as there are shares."""
    cdef Py_ssize_t row = t.order[0] + (t.begins[step] if t.begins != NULL else step * t.rows)
    cdef Py_ssize_t shares = t.h_row // (t.outputs * t.itemsize)
    cdef step_tape tape = tape_from(t.tape, row, t.itemsize)
    tape.gates_row *= shares
    tape.c_row *= shares
    return tape


cdef inline void take_x(const task *t, Py_ssize_t step, char *v, int member,
                        int team) noexcept nogil:
    """A member's share of the running rows' x_t into v, where it ends before h; or all of them
    converted, into a v of its own."""
    cdef Py_ssize_t j, n = size_at(t, step), size = t.itemsize
    if t.converts:
        for j in range(n):
            t.kernel.convert(t.inputs, x_at(t, step) + t.order[j] * t.x_row, 0, 0,
                             v + j * t.inputs_width * t.kernel.input_size)
        return
    v += (t.h_at - t.inputs) * size
    for j in range(n * member // team, n * (member + 1) // team):
        memcpy(v + j * t.v_width * size, x_at(t, step) + t.order[j] * t.x_row, t.inputs * size)


cdef inline void convert_h(const task *t, Py_ssize_t n, const char *h, char *to) noexcept nogil:
    """The running rows' h_{t-1}, after x_t where that is fused."""
    convert_rows(t.kernel, n, t.outputs, h, t.v_width * t.itemsize, t.fused,
                 t.weight_ih.depth if t.fused else 0, to, t.inputs_width)


cdef inline void look_up_rows(const task *t, Py_ssize_t step, Py_ssize_t n,
                              Py_ssize_t *rows) noexcept nogil:
    """rows := those of the table that are the running rows' z_t."""
    cdef Py_ssize_t j
    cdef const char *ids = x_at(t, step)
    for j in range(n):
        rows[j] = (<const Py_ssize_t *> (ids + t.order[j] * t.x_row))[0]


cdef void project(const task *t, Py_ssize_t first, Py_ssize_t last, Py_ssize_t tile,
                  Py_ssize_t end) noexcept nogil:
    """z_block := x's share of the pre-activations: steps [first, last), tiles [tile, end)."""
    cdef const char *x = <const char *> t.x_block if t.gather else x_at(t, first)
    cdef Py_ssize_t x_row = t.x_width if t.gather else t.x_row // t.itemsize
    t.kernel.multiply(&t.weight_ih, rows_between(t, first, last), x, x_row, t.z_block, t.z_width,
                      tile, end, False, False)


cdef inline void begin_block(task *t, Py_ssize_t first, Py_ssize_t last, Py_ssize_t tile,
                             Py_ssize_t end, int member, int team) noexcept nogil:
    """x's share of the pre-activations of steps [first, last), where a step does not take it."""
    if not t.fused and t.table == NULL:
        if t.gather:
            gather_rows(t, first, last, member, team)
            wait_for_team(&t.meeting, team)
        project(t, first, last, tile, end)
    wait_for_team(&t.meeting, team)  # y may be where x is: all have read before one writes


cdef inline void project_outputs(const task *t, Py_ssize_t n, char *h, char *y,
                                 bint down) noexcept nogil:
    """h := what the cells gave, projected; and into y."""
    cdef const char *rows = t.unprojected
    cdef Py_ssize_t width = t.c_width
    if t.converts:
        rows, width = t.unprojected_inputs, t.kernel.header + t.weight_hr.depth
        convert_rows(t.kernel, n, t.hidden, t.unprojected, t.c_width * t.itemsize, 0, 0,
                     t.unprojected_inputs, width)
    t.kernel.multiply(&t.weight_hr, n, rows, width, h, t.v_width, 0, t.weight_hr.tiles, down, False)
    scatter_rows(t, n, h, t.v_width * t.itemsize, y)


cdef void change_running(const task *t, Py_ssize_t running, Py_ssize_t n,
                         char *v_now) noexcept nogil:
    """From `running` rows to n: take in the state of those that begin, give back the others'."""
    cdef:
        Py_ssize_t size = t.itemsize, v_row = t.v_width * size, c_row = t.c_width * size
        Py_ssize_t begin = min(running, n), count = max(running, n) - begin
        char *h = t.h + begin * t.h_row
        char *c = t.c + begin * t.c_row if t.c != NULL else NULL
        char *h_padded = v_now + t.h_at * size + begin * v_row
        char *c_padded = t.c_now + begin * c_row
    if n > running:
        copy_rows(count, t.outputs * size, h, t.h_row, h_padded, v_row)
        if t.c != NULL:
            copy_rows(count, t.hidden * size, c, t.c_row, c_padded, c_row)
    else:
        copy_rows(count, t.outputs * size, h_padded, v_row, h, t.h_row)
        if t.c != NULL:
            copy_rows(count, t.hidden * size, c_padded, c_row, c, t.c_row)


cdef inline const char *starts_at(const task *t, Py_ssize_t step) noexcept nogil:
    return t.starts + (t.begins[step] if t.begins != NULL else step * t.starts_step)


cdef bint any_starts(const task *t, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    """Whether a running row's state starts from zero at this step."""
    cdef Py_ssize_t j
    cdef const char *starts
    if t.starts == NULL:
        return False
    starts = starts_at(t, step)
    for j in range(n):
        if starts[t.order[j]]:
            return True
    return False


cdef void start_from_zero(const task *t, Py_ssize_t step, Py_ssize_t n, char *v_now) noexcept nogil:
    cdef Py_ssize_t j, size = t.itemsize
    cdef const char *starts = starts_at(t, step)
    for j in range(n):
        if starts[t.order[j]]:
            memset(v_now + (j * t.v_width + t.h_at) * size, 0, t.outputs * size)
            if t.c != NULL:
                memset(t.c_now + j * t.c_width * size, 0, t.hidden * size)


cdef void run_tasks(work *w) noexcept nogil:
    """All tasks, by threads that take one each, or that all work on each in turn."""
    cdef Py_ssize_t j
    if w.threads <= w.count:
        share(w.threads, <int> w.count, sameness_of(w), take_task, w)
        return
    for j in range(w.count):
        meet(min(w.threads, w.tasks[j].weights.tiles), run_member, &w.tasks[j])


cdef sameness sameness_of(const work *w) noexcept nogil:
    """Not alike are layers that wait for each other, and shares of few rows."""
    return ALIKE if w.block == 0 and w.tasks[0].most >= ROWS_ALIKE else VARIOUS


cdef void run_member(void *t, int member, int team) noexcept nogil:
    run_task(<task *> t, member, team)


cdef void take_task(void *w, int unit, int member) noexcept nogil:
    run_task(&(<work *> w).tasks[unit], 0, 1)


cdef void run_task(task *t, int member, int team) noexcept nogil:
    """A member's share of a task. Where the rows change or move, the first member does it."""
    cdef:
        Py_ssize_t tiles = t.weights.tiles, size = t.itemsize, h_at = t.h_at * size
        Py_ssize_t tile = member * tiles // team, end = (member + 1) * tiles // team
        Py_ssize_t number, first, last, position, step, n, running = 0
        char *y
        char *v_now = t.v_now
        char *v_next = t.v_next
        char *mine = t.inputs_now + member * t.most * t.inputs_width * t.kernel.input_size
        step_tape tape
        packed_step s
    s.z, s.z_rows, s.c, s.y_rows, s.tape = NULL, NULL, t.c_now, t.order, NULL
    s.v_row, s.z_row, s.y_row = t.v_width, t.z_width, t.y_row // size
    s.c_row = t.c_width if t.c != NULL else t.v_width
    s.h_row = t.c_width if t.projected else t.v_width
    if t.converts:
        s.v, s.v_row = mine, t.inputs_width
    if t.table != NULL:
        s.z, s.z_rows = <char *> t.table, t.ids + member * t.most
    if t.fused:
        take_x(t, t.steps - 1 if t.reverse else 0, mine if t.converts else v_now, member, team)
    for number in range((t.steps + t.block - 1) // t.block):
        first = number * t.block
        last = min(first + t.block, t.steps)
        if t.source != NULL:
            await_progress(t.source, last)
        if t.reverse:
            first, last = t.steps - last, t.steps - first
        begin_block(t, first, last, tile, end, member, team)
        for position in range(last - first):
            step = last - 1 - position if t.reverse else first + position
            n = size_at(t, step)
            if n != running:
                if member == 0:
                    change_running(t, running, n, v_now)
                wait_for_team(&t.meeting, team)
                running = n
            if any_starts(t, step, n):
                if member == 0:
                    start_from_zero(t, step, n, v_now)
                wait_for_team(&t.meeting, team)
            y = t.y + (t.begins[step] * t.y_row if t.begins != NULL else step * t.y_step)
            if t.converts:
                convert_h(t, n, v_now, mine)
            else:
                s.v = v_now + h_at - (t.inputs * size if t.fused else 0)
            if t.table != NULL:
                look_up_rows(t, step, n, t.ids + member * t.most)
            elif not t.fused:
                s.z = t.z_block + rows_between(t, first, step) * t.z_width * size
            if t.c == NULL:
                s.c = v_now + h_at
            s.h = t.unprojected if t.projected else v_next + h_at
            s.y = NULL if t.projected else y
            if t.tape.gates != NULL:
                tape = tape_at(t, step)
                s.tape = &tape
            s.down = t.down ^ (first + position) % 2
            t.functions.step(t.equations, &t.weights, n, &s, tile, end)
            if t.fused and position + 1 < last - first:
                take_x(t, step - 1 if t.reverse else step + 1, mine if t.converts else v_next,
                       member, team)
            wait_for_team(&t.meeting, team)
            if t.projected:
                if member == 0:
                    project_outputs(t, n, v_next + h_at, y, s.down)
                wait_for_team(&t.meeting, team)
            v_now, v_next = v_next, v_now
        if t.followed:
            advance(&t.finished, t.steps - first if t.reverse else last)
    if member == 0:
        change_running(t, running, 0, v_now)
