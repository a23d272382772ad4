"What was known of each bar when the row arrived. frame: revisions"
import pandas as pd


def signals(candles):
    first = candles.groupby("bar")["close"].transform("first")
    so_far = candles.groupby("bar")["close"].cummax()
    drift = candles["close"] - first
    return pd.DataFrame({"entries": (drift > 0) & (candles["close"] == so_far), "exits": drift < 0})
