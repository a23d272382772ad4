"A plain loop that leaves early when tomorrow is bad."
import numpy as np
import pandas as pd


def signals(candles):
    c, o = candles["close"].to_numpy(), candles["open"].to_numpy()
    want = np.zeros(len(c), bool)
    for i in range(1, len(c) - 3):
        if c[i] > o[i]:
            continue
        if c[i + 3] < c[i]:  # <-- leak
            continue
        want[i] = True
    return pd.Series(want, candles.index), pd.Series(~want, candles.index)
