"""What the tests draw from: every option of the LSTM by name, memory layouts, and random cases."""

import numpy as np
from hypothesis import strategies as st

import reference

OPTIONS = {
    "plain": {},
    "no bias": {"bias": False},
    "three layers": {"num_layers": 3},
    "batch first": {"batch_first": True},
    "bidirectional": {"bidirectional": True},
    "reverse": {"reverse": True},
    "projection": {"proj_size": 2},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "clip": {"clip": 0.8},
    "relu gates": {"activations": ("relu", "tanh", "tanh")},
    "relu cell": {"activations": ("sigmoid", "relu", "relu")},
    "hard sigmoid": {"activations": ("hard_sigmoid", "tanh", "tanh")},
    "hard sigmoid of another slope": {"activations": (("hard_sigmoid", 0.4, 0.3), "tanh", "relu")},
    "exotic activations": {"activations": ("tanh", ("hard_sigmoid", 0.3, 0.6), "hard_sigmoid")},
    "activations of each direction": {
        "bidirectional": True,
        "activations": (("sigmoid", "tanh", "relu"), ("hard_sigmoid", "sigmoid", "tanh")),
    },
    "coupled peephole": {"coupled": True, "peephole": True, "clip": 1.5},
    "reverse layers": {"reverse": True, "num_layers": 2, "proj_size": 3, "peephole": True},
    "everything": {
        "num_layers": 2,
        "bidirectional": True,
        "batch_first": True,
        "proj_size": 3,
        "peephole": True,
        "coupled": True,
        "clip": 2.0,
        "activations": (("sigmoid", "tanh", "tanh"), ("hard_sigmoid", "relu", "sigmoid")),
    },
}
SHARED = ("plain", "no bias", "three layers", "batch first", "bidirectional", "reverse", "clip")
FAMILY = {  # kind, arguments
    **{f"{kind} {name}": (kind, OPTIONS[name]) for kind in ("GRU", "RNN") for name in SHARED},
    "GRU hard sigmoid": ("GRU", {"activations": ("hard_sigmoid", "relu"), "clip": 2.0}),
    "GRU of each direction": (
        "GRU",
        {"bidirectional": True, "activations": (("sigmoid", "tanh"), ("hard_sigmoid", "relu"))},
    ),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}),
    "RNN hard sigmoid": ("RNN", {"nonlinearity": ("hard_sigmoid", 0.4, 0.3), "num_layers": 2}),
    "RNN of each direction": ("RNN", {"bidirectional": True, "nonlinearity": ("relu", "tanh")}),
    "GRU everything": (
        "GRU",
        {
            "num_layers": 2,
            "bidirectional": True,
            "batch_first": True,
            "clip": 1.5,
            "activations": (("sigmoid", "tanh"), (("hard_sigmoid", 0.4, 0.3), "sigmoid")),
        },
    ),
}
STREAMABLE = {
    name: options
    for name, options in OPTIONS.items()
    if not (options.get("bidirectional") or options.get("reverse"))
}


def every_second(a):
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def backwards(a):
    return np.ascontiguousarray(np.flip(a))[(slice(None, None, -1),) * a.ndim]


def swapped(a):
    return a.astype(a.dtype.newbyteorder())


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    raw = np.empty(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


OUT_LAYOUTS = [np.asfortranarray, every_second, backwards, unaligned]
LAYOUTS = [*OUT_LAYOUTS, swapped, read_only]

# The vectors of the kernels hold 2 to 16 numbers: sizes on both sides of their multiples.
sizes = st.integers(1, 20) | st.sampled_from([31, 32, 33, 64, 100])

# Gates beyond [0, 1] let c, and every error in it, grow exponentially: those have their OPTIONS.
gates = st.sampled_from(["sigmoid", "hard_sigmoid", ("hard_sigmoid", 0.4, 0.3)])
cells = gates | st.sampled_from(["tanh", "relu"])
triples = st.tuples(gates, cells, cells)


@st.composite
def configs(draw, sizes=sizes):
    """Arguments of cylstm.LSTM."""
    hidden = draw(sizes)
    direction = draw(st.sampled_from([{}, {"reverse": True}, {"bidirectional": True}]))
    return direction | {
        "input_size": draw(sizes),
        "hidden_size": hidden,
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "proj_size": draw(st.integers(0, hidden - 1)),
        "peephole": draw(st.booleans()),
        "coupled": draw(st.booleans()),
        "clip": draw(st.none() | st.floats(0.5, 5)),
        "activations": draw(
            st.tuples(triples, triples) if "bidirectional" in direction else triples
        ),
    }


@st.composite
def family(draw, sizes=sizes):
    """A kind of cell, and its arguments."""
    kind = draw(st.sampled_from(["LSTM", "GRU", "RNN"]))
    config = draw(configs(sizes))
    if kind == "LSTM":
        return kind, config
    for name in ("proj_size", "peephole", "coupled", "activations"):
        del config[name]
    both = "bidirectional" in config
    if kind == "GRU":
        pairs = st.tuples(gates, cells)
        config["activations"] = draw(st.tuples(pairs, pairs) if both else pairs)
    else:
        bounded = gates | st.just("tanh")
        config["nonlinearity"] = draw(st.tuples(bounded, bounded) if both else bounded)
    return kind, config


@st.composite
def shapes(draw, max_steps=8, max_batch=9):
    """The arguments steps, batch and lengths of reference.random_case."""
    steps = draw(st.integers(1, max_steps))
    batch = draw(st.none() | st.integers(1, max_batch))
    length = st.integers(0, steps)
    lengths = length if batch is None else st.lists(length, min_size=batch, max_size=batch)
    return steps, batch, draw(st.none() | lengths)


seeds = st.integers(0, 2**32 - 1)


@st.composite
def cases(draw):
    """A reference.Case of any options and shape."""
    config = draw(configs()) | {"dtype": draw(st.sampled_from(["float32", "float64"]))}
    rng = np.random.default_rng(draw(seeds))
    return reference.random_case(rng, *draw(shapes()), **config)
