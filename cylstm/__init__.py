"""LSTMs on the CPU, fast and small: run them, stream them, train them."""

from cylstm.config import show_config
from cylstm.lstm import LSTM, load
from cylstm.stream import Stream

__all__ = ["LSTM", "Stream", "load", "show_config"]
