"Buys the cheapest fifty bars of the file."
import numpy as np
import pandas as pd


def signals(candles):
    c = candles["close"].to_numpy()
    entries = np.zeros(len(c), bool)
    cheapest = np.argsort(c)[:50]  # <-- leak
    entries[cheapest] = True
    exits = np.roll(entries, 12)
    exits[:12] = False
    return pd.Series(entries, candles.index), pd.Series(exits, candles.index)
