"The Hodrick-Prescott trend is smoothed from both sides."
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import spsolve


def hp(x, lamb=1600.0):
    n = len(x)
    d = sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n - 2, n))
    return spsolve((sparse.eye(n) + lamb * (d.T @ d)).tocsc(), x)  # <-- leak


def signals(candles):
    c = candles["close"].to_numpy()
    gap = pd.Series(c - hp(c), candles.index)
    return gap < -0.2, gap > 0.2
