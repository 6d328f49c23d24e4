"""g2pM, which reads Chinese aloud (pinyin), with our LSTM in the place of its loop in NumPy.

    pip install g2pM cylstm
    python g2pm_cylstm.py

The package has no framework: its bidirectional LSTM of 32 units is written in NumPy, in float64.
"""

import numpy as np
from g2pM import G2pM

import cylstm


class FastG2pM(G2pM):
    """The package's, of which the model is replaced."""

    def load_variable(self, state_dict):
        super().load_variable(state_dict)
        self.lstm = cylstm.from_torch(state_dict, batch_first=True)

    def predict(self, inputs, target_idx):
        lengths = np.sign(inputs).sum(axis=1)
        y, _ = self.lstm(self.get_embedding(inputs), lengths=lengths)
        hidden = y[0][target_idx] if len(y) == 1 else y[np.arange(len(y)), target_idx]
        return self.fc_layer(hidden).argmax(axis=1)


def load():
    """What gives a sentence's pinyin."""
    return FastG2pM()


if __name__ == "__main__":
    from samples import CHINESE

    print(load()(CHINESE[0]))
