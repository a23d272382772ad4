"Columns and keys that only sound like the future."
import pandas as pd

LAGS = {"shift(-1)": 1, "lag -2": 2, "bfill": 3}


def signals(candles):
    r = candles["close"].pct_change()
    x = pd.DataFrame({name: r.shift(k) for name, k in LAGS.items()})
    x["center=True"] = x.rolling(5).mean().sum(axis=1)
    score = x["shift(-1)"] - x["lag -2"] + x["center=True"]
    return score > 0.002, score < -0.002
