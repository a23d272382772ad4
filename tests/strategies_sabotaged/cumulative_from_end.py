"Volume that is still to come."
import numpy as np
import pandas as pd


def signals(candles):
    v = candles["volume"].to_numpy()
    left = np.cumsum(v[::-1])[::-1]  # <-- leak
    done = np.cumsum(v)
    share = pd.Series(done / (done + left), candles.index)
    return share > 0.5, share > 0.9
