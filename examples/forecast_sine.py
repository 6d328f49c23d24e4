"""The smallest forecaster: an LSTM learns to go on with a noisy sine wave.

It learns to forecast the next value of windows of the first part of the wave. Then it is judged on
the rest: one step ahead, and 100 steps ahead, each forecast fed back as if it had been seen, also
through a stream. Beside it stand persistence (no change) and a linear autoregression.

    python examples/forecast_sine.py            # a few seconds
    python examples/forecast_sine.py --help
"""

import os

# Products as small as these gain nothing from several threads, and on busy cores lose much.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import matplotlib

matplotlib.use("Agg")  # a picture in a file needs no screen
import matplotlib.pyplot as plt
import numpy as np
from report import claim, parse_arguments, print_table

from cylstm import LSTM, load
from cylstm.train import Adam, Cosine, Last, Linear, Sequential, fit, mse_loss, windows

PERIOD, NOISE = 25, 0.1
LEARNT, JUDGED = 1000, 300  # steps of the wave
STEPS = 50  # of a window
AHEAD = 100


def make_wave():
    """Return the wave as it is seen, with noise, and as it is."""
    wave = np.sin(2 * np.pi * np.arange(LEARNT + JUDGED) / PERIOD)
    seen = wave + np.random.default_rng(0).normal(0, NOISE, len(wave))
    return seen.astype(np.float32), wave.astype(np.float32)


def train(series, epochs):
    """Train a model; return it with the history."""
    model = Sequential(LSTM(1, 16, seed=0), Last(), Linear(16, 1, seed=0))
    learnt, watched = windows(series[:-200], STEPS), windows(series[-200 - STEPS :], STEPS)
    history = fit(
        model,
        learnt,
        mse_loss,
        Adam(model),
        epochs=epochs,
        validation=watched,
        schedule=Cosine(1e-2, epochs * -(-learnt[0].shape[1] // 32)),
        clip_norm=1.0,
        seed=0,
        progress=True,
    )
    return model, history


class Autoregression:
    """The next value as a linear function of the last 50."""

    def __init__(self, series):
        past, following = windows(series, STEPS)
        self.weights = np.linalg.lstsq(past[:, :, 0].T, following[:, 0], rcond=None)[0]

    def __call__(self, past):
        """Return a forecast (N, 1) for each window (T, N, 1)."""
        return (self.weights @ past[-STEPS:, :, 0])[:, None]


def persistence(past):
    return past[-1]


def go_on(forecaster, past, steps):
    """Return a forecast of many steps, each made of those before it."""
    series = list(past)
    for _ in range(steps):
        series.append(forecaster(np.reshape(series[-STEPS:], (STEPS, 1, 1)))[0, 0])
    return np.array(series[len(past) :])


def stream_on(model, past, steps):
    """Return what `go_on` does, by a stream that reads the past once and then its own forecasts."""
    stream, forecasts = model.stream(), []
    for value in past:
        forecast = stream.step(np.full((1, 1), value, np.float32))
    for _ in range(steps):
        forecasts.append(forecast[0, 0])
        forecast = stream.step(forecast)
    return np.array(forecasts)


def rmse(forecasts, truth):
    return float(np.sqrt(np.mean((forecasts - truth) ** 2)))


def draw(history, seen, forecasts, path):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    history.plot(left).set(title="Learning", yscale="log")
    right.plot(np.arange(-STEPS, AHEAD), seen, ".", color="0.6", label="seen, or yet to be seen")
    for name, values in forecasts.items():
        right.plot(np.arange(AHEAD), values, label=name)
    right.set(title=f"{AHEAD} steps ahead", xlabel="steps from now", ylim=(-1.6, 1.9))
    right.legend(frameon=False, ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    arguments = parse_arguments(__doc__, epochs=(40, "epochs of training"))
    if arguments.quick:
        arguments.epochs = 15
    seen, wave = make_wave()
    model, history = train(seen[:LEARNT], arguments.epochs)

    forecasters = {
        "persistence": persistence,
        "autoregression": Autoregression(seen[:LEARNT]),
        "LSTM": model,
    }
    past, _ = windows(seen[LEARNT - STEPS :], STEPS)
    now = slice(LEARNT, LEARNT + AHEAD)
    ahead = {
        name: go_on(forecaster, seen[LEARNT - STEPS : LEARNT], AHEAD)
        for name, forecaster in forecasters.items()
    }
    errors = {
        name: [rmse(forecaster(past)[:, 0], wave[LEARNT:]), rmse(ahead[name], wave[now])]
        for name, forecaster in forecasters.items()
    }
    print_table("RMSE, of the wave without noise", ["1 step ahead", f"1 to {AHEAD}"], errors)
    better = np.less(errors["LSTM"], errors["persistence"]).all()
    claim(better, "the LSTM beats persistence, one step and many steps ahead")

    path = arguments.out / "sine.safetensors"
    model.save(path)
    loaded = load(path)
    claim(np.array_equal(loaded(past), model(past)), f"loaded from {path}, it gives the same bits")
    ahead["LSTM"] = stream_on(loaded, seen[LEARNT - 4 * STEPS : LEARNT], AHEAD)
    error = rmse(ahead["LSTM"], wave[now])
    claim(error < errors["persistence"][1], f"as a stream it goes on as well: RMSE {error:.3f}")
    draw(history, seen[LEARNT - STEPS : LEARNT + AHEAD], ahead, arguments.out / "sine.png")
    print(f"the picture is {arguments.out / 'sine.png'}")


if __name__ == "__main__":
    main()
