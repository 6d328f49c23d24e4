"""An LSTM forecasts the sunspots, one month and one year ahead.

The series is the monthly mean sunspot number from 1749 to 1983. The model reads it month by month,
and at every month forecasts the next twelve. It learns from the first 80 %, scaling included, and
is judged on the last 20 %. The settings below were compared on three stretches of the first 80 %,
each forecast by models that had learnt from what lies before it.

    python examples/forecast_sunspots.py            # about ten seconds
    python examples/forecast_sunspots.py --help
"""

import argparse
import math
import os
import sys
from pathlib import Path

# Products as small as these gain nothing from several threads, and on busy cores lose much.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import matplotlib

matplotlib.use("Agg")  # a picture in a file needs no screen
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from cylstm import LSTM
from cylstm.train import Adam, Linear, Sequential, clip_grad_norm, mse_loss

DATA = Path(__file__).parent / "data" / "sunspots.csv"
HELD_OUT = 0.2  # of the series, at its end
HORIZONS = 12  # months that are forecast at each month
JUDGED = (1, 12)  # months ahead
CYCLE = 132  # months: eleven years

WINDOW = 264  # months in a training window: two cycles
STRIDE = 12  # months from one window to the next
BATCH = 16
HIDDEN = 32
LEARNING_RATE = 1e-2
STRENGTH = 0.3  # how much the random strength of training windows varies


class Scale:
    """Square roots, which make the noise of small and large numbers alike, standardised."""

    def __init__(self, training):
        roots = np.sqrt(training)
        self.mean, self.deviation = roots.mean(), roots.std()

    def apply(self, numbers):
        """Return sunspot numbers as the model sees them."""
        return ((np.sqrt(numbers) - self.mean) / self.deviation).astype(np.float32)

    def undo(self, scaled):
        """Return what the model says as sunspot numbers."""
        return np.maximum(scaled * self.deviation + self.mean, 0) ** 2


def read_series():
    """Return the months as decimal years, and the sunspot numbers."""
    months, sunspots = np.loadtxt(DATA, delimiter=",", skiprows=1, dtype=str, unpack=True)
    return months.astype("datetime64[M]").astype(int) / 12 + 1970, sunspots.astype(float)


def build_model(seed):
    return Sequential(LSTM(1, HIDDEN, seed=seed), Linear(HIDDEN, HORIZONS, seed=seed))


def cut_windows(scaled):
    """Return inputs (T, windows, 1), and targets (T, windows, 12): the changes that follow."""
    starts = np.arange(0, len(scaled) - WINDOW - HORIZONS + 1, STRIDE)
    now = np.arange(WINDOW)[:, None] + starts
    ahead = now[..., None] + np.arange(1, HORIZONS + 1)
    inputs = scaled[now][..., None]
    return inputs, scaled[ahead] - inputs


def strengthen(inputs, changes, zero, rng):
    """Multiply each window by a random factor, for cycles differ in strength."""
    factor = np.exp(rng.normal(0, STRENGTH, (inputs.shape[1], 1))).astype(np.float32)
    return (inputs - zero) * factor + zero, changes * factor


def train(scaled, zero, seed, epochs, progress):
    """Train a model on the scaled training part of the series; `zero` is a month without spots."""
    inputs, targets = cut_windows(scaled)
    model = build_model(seed)
    optimizer = Adam(model)
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        optimizer.lr = LEARNING_RATE * (1 + math.cos(math.pi * epoch / epochs)) / 2
        shuffled = rng.permutation(inputs.shape[1])
        for batch in np.array_split(shuffled, math.ceil(len(shuffled) / BATCH)):
            x, target = strengthen(inputs[:, batch], targets[:, batch], zero, rng)
            prediction, tape = model.forward(x)
            loss, gradient = mse_loss(prediction, target)
            _, grads = model.backward(tape, gradient)
            clip_grad_norm(grads, 1.0)
            optimizer.step(grads)
        progress.set_postfix(seed=seed, loss=f"{loss:.3f}")
        progress.update()
    return model


def forecast(model, scaled):
    """Return the scaled forecasts (T, 12): row t holds those for t + 1 ... t + 12, made at t."""
    return scaled[:, None] + model(scaled[:, None, None])[:, 0]


def stream_forecast(model, scaled):
    """Return what `forecast` does, from a model that is shown one month after the other."""
    lstm, linear = model
    stream = lstm.stream()
    return np.stack([now + linear(stream.step(np.full((1, 1), now)))[0] for now in scaled])


def errors(forecasts, sunspots, first):
    """Return the RMSE of the held-out part at each judged horizon, in sunspot numbers."""
    held_out = np.arange(first, len(sunspots))
    return [rmse(forecasts[held_out - ahead, ahead - 1], sunspots[held_out]) for ahead in JUDGED]


def rmse(forecasts, truth):
    return float(np.sqrt(np.mean((forecasts - truth) ** 2)))


def naive_errors(sunspots, first):
    """Return the RMSE of the two naive forecasts, at each judged horizon."""
    truth = sunspots[first:]
    persistence = [rmse(sunspots[first - ahead : -ahead], truth) for ahead in JUDGED]
    seasonal = [rmse(sunspots[first - CYCLE : -CYCLE], truth)] * len(JUDGED)  # at any horizon
    return {"persistence": persistence, "eleven years ago": seasonal}


def print_table(rows):
    print(f"\nRMSE on the held-out part{'1 month ahead':>21}{'12 months ahead':>19}")
    for name, (one, twelve) in rows.items():
        print(f"{name:<25}{one:>21.2f}{twelve:>19.2f}")


def draw(years, sunspots, forecasts, first, path):
    figure, axes = plt.subplots(len(JUDGED), figsize=(11, 7), sharex=True, layout="constrained")
    for axis, ahead in zip(axes, JUDGED, strict=True):
        title = f"{ahead} month{'s' if ahead > 1 else ''} ahead"
        axis.plot(years[first:], sunspots[first:], color="0.6", label="observed")
        axis.plot(years[first:], forecasts[first - ahead : -ahead, ahead - 1], label="forecast")
        axis.set(title=title, ylabel="sunspot number", ylim=(0, None))
        axis.legend(loc="upper right", frameon=False)
    axes[-1].set(xlabel="year", xlim=(years[first], years[-1]))
    figure.savefig(path, dpi=120)


def claim(holds, text):
    """Print a claim; end the program with an error if it does not hold."""
    print(f"{'ok' if holds else 'FAILED':<7}{text}")
    if not holds:
        sys.exit(1)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="models to train (default: 5)")
    parser.add_argument("--epochs", type=int, default=40, help="of training (default: 40)")
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs: a test run")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the model and plot")
    arguments = parser.parse_args()
    if min(arguments.seeds, arguments.epochs) < 1:
        parser.error("--seeds and --epochs must be at least 1")
    if arguments.quick:
        arguments.seeds, arguments.epochs = 1, 20
    arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def main():
    arguments = parse_arguments()
    years, sunspots = read_series()
    first = len(sunspots) - round(HELD_OUT * len(sunspots))
    scale = Scale(sunspots[:first])
    scaled = scale.apply(sunspots)

    with tqdm(total=arguments.seeds * arguments.epochs, unit="epoch") as progress:
        models = [
            train(scaled[:first], scale.apply(0), seed, arguments.epochs, progress)
            for seed in range(arguments.seeds)
        ]

    naive = naive_errors(sunspots, first)
    learnt = {
        f"LSTM, seed {seed}": errors(scale.undo(forecast(model, scaled)), sunspots, first)
        for seed, model in enumerate(models)
    }
    print_table(naive | learnt)
    print()
    worst, best_naive = np.max([*learnt.values()], axis=0), np.min([*naive.values()], axis=0)
    claim((worst < best_naive).all(), "every LSTM beats both naive forecasts at both horizons")

    model, path = models[0], arguments.out / "sunspots.safetensors"
    forecasts = forecast(model, scaled)
    model.save(path)
    same = np.array_equal(forecast(Sequential.load(path), scaled), forecasts)
    claim(same, f"loaded again from {path}, the model forecasts the same bits")

    difference = np.abs(stream_forecast(model, scaled) - forecasts).max()
    claim(difference < 1e-5, f"month by month, it forecasts the same (within {difference:.0e})")

    draw(years, sunspots, scale.undo(forecasts), first, arguments.out / "forecast.png")
    print(f"the picture is {arguments.out / 'forecast.png'}")


if __name__ == "__main__":
    main()
