"""LSTMs on the CPU, fast and small: run them, stream them, train them."""

from cylstm._inference import get_num_threads, set_num_threads
from cylstm.config import show_config
from cylstm.lstm import LSTM, load
from cylstm.stream import Stream

__all__ = ["LSTM", "Stream", "get_num_threads", "load", "set_num_threads", "show_config"]
