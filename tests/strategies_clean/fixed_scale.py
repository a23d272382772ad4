"Scaled by the first three hundred bars, used only after them."
import numpy as np


def signals(candles):
    c = candles["close"]
    past = c.iloc[:300]
    z = (c - past.mean()) / past.std()
    z = z.where(np.arange(len(c)) >= 300)
    return z < -1, z > 1
