"""An LSTM forecasts the sunspots, one month and one year ahead.

The series is the monthly mean sunspot number from 1749 to 1983. The model reads it month by month,
and at every month forecasts the next twelve. It learns from the first 80 %, scaling included, and
is judged on the last 20 %, beside two naive forecasts and a linear autoregression. The settings
below were compared on three stretches of the first 80 %, each forecast by models that had learnt
from what lies before it.

    python examples/forecast_sunspots.py            # about ten seconds
    python examples/forecast_sunspots.py --help
"""

import os
from pathlib import Path

# Products as small as these gain nothing from several threads, and on busy cores lose much.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import matplotlib

matplotlib.use("Agg")  # a picture in a file needs no screen
import matplotlib.pyplot as plt
import numpy as np
from report import claim, parse_arguments

from cylstm import LSTM, load
from cylstm.train import (
    Adam,
    Arrays,
    Cosine,
    Linear,
    Sequential,
    Source,
    fit,
    mse_loss,
    windows,
)

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
ORDER = 36  # months that the autoregression sees
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


class Windows(Source):
    """Windows of the series, each as strong as chance will have it, for cycles differ in strength.

    The targets (T, N, 12) are the changes that follow each month. `zero` is a month without spots.
    """

    def __init__(self, scaled, zero):
        x, following = windows(scaled, WINDOW, HORIZONS, stride=STRIDE, every_step=True)
        self.windows, self.zero = Arrays(x, following - x, BATCH), zero

    def __len__(self):
        return len(self.windows)

    def epoch(self, rng):
        for x, changes, *_ in self.windows.epoch(rng):
            factor = np.exp(rng.normal(0, STRENGTH, (x.shape[1], 1))).astype(np.float32)
            yield (x - self.zero) * factor + self.zero, changes * factor


def train(scaled, zero, seed, epochs):
    """Train a model on the scaled training part of the series."""
    model, source = build_model(seed), Windows(scaled, zero)
    schedule = Cosine(LEARNING_RATE, epochs * len(source))
    fit(model, source, mse_loss, Adam(model), epochs=epochs, schedule=schedule, clip_norm=1.0,
        seed=seed, progress=True)  # fmt: skip
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


def autoregression(scaled, first):
    """Return the forecasts of a linear model of the last months, fitted to the training part.

    It forecasts one month; that forecast stands in for the month in the next one, and so on.
    """
    past, following = windows(scaled, ORDER)
    past = np.column_stack([np.ones(len(following)), past[:, :, 0].T])
    learnt = first - ORDER
    weights = np.linalg.lstsq(past[:learnt], following[:learnt, 0], rcond=None)[0]
    known, forecasts = scaled[:, None], np.full((len(scaled), HORIZONS), np.nan)
    rows = np.arange(ORDER - 1, len(scaled))
    seen = known[rows[:, None] + np.arange(1 - ORDER, 1), 0]
    for ahead in range(HORIZONS):
        forecasts[rows, ahead] = weights[0] + seen @ weights[1:]
        seen = np.column_stack([seen[:, 1:], forecasts[rows, ahead]])
    return forecasts


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


def main():
    arguments = parse_arguments(
        __doc__, seeds=(5, "models to train"), epochs=(40, "epochs of training")
    )
    if arguments.quick:
        arguments.seeds, arguments.epochs = 1, 20
    years, sunspots = read_series()
    first = len(sunspots) - round(HELD_OUT * len(sunspots))
    scale = Scale(sunspots[:first])
    scaled = scale.apply(sunspots)

    models = [
        train(scaled[:first], scale.apply(0), seed, arguments.epochs)
        for seed in range(arguments.seeds)
    ]

    naive = naive_errors(sunspots, first)
    learnt = {
        f"LSTM, seed {seed}": errors(scale.undo(forecast(model, scaled)), sunspots, first)
        for seed, model in enumerate(models)
    }
    linear = scale.undo(autoregression(scaled, first))
    autoregressive = {"autoregression": errors(linear, sunspots, first)}
    print_table(naive | autoregressive | learnt)
    print()
    worst, best_naive = np.max([*learnt.values()], axis=0), np.min([*naive.values()], axis=0)
    claim((worst < best_naive).all(), "every LSTM beats both naive forecasts at both horizons")
    if not arguments.quick:
        claim(worst[1] < autoregressive["autoregression"][1], "and the autoregression a year ahead")

    model, path = models[0], arguments.out / "sunspots.safetensors"
    forecasts = forecast(model, scaled)
    model.save(path)
    same = np.array_equal(forecast(load(path), scaled), forecasts)
    claim(same, f"loaded again from {path}, the model forecasts the same bits")

    difference = np.abs(stream_forecast(model, scaled) - forecasts).max()
    claim(difference < 1e-5, f"month by month, it forecasts the same (within {difference:.0e})")

    draw(years, sunspots, scale.undo(forecasts), first, arguments.out / "forecast.png")
    print(f"the picture is {arguments.out / 'forecast.png'}")


if __name__ == "__main__":
    main()
