"Stamps moved by one bar, then aligned again by pandas."
import pandas as pd


def signals(candles):
    c = candles["close"]
    moved = c.copy()
    moved.index = moved.index - pd.Timedelta("5min")  # <-- leak
    edge = moved / c - 1
    return (edge > 0.001).reindex(c.index), (edge < -0.001).reindex(c.index)
