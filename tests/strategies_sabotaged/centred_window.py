"Smooth, with half of the window in the future."
import numpy as np


def smooth(x, n):
    w = x.rolling(n, center=True)
    return w.mean()  # <-- leak


def signals(candles):
    c = candles["close"]
    s = smooth(c, 21)
    up = np.sign(s.diff())
    return up > 0, up < 0
