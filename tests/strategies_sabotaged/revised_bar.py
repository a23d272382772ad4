"Rows are revisions in the order they arrived; this one reads what a bar became in the end. frame: revisions"
import pandas as pd


def signals(candles):
    final = candles.groupby("bar")["close"].last()  # <-- leak
    settled = candles["bar"].map(final)
    drift = settled - candles["close"]
    return pd.DataFrame({"entries": drift > 0, "exits": drift < 0})
