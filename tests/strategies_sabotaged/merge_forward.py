"Joins the next hourly bar instead of the last one."
import pandas as pd


def signals(candles):
    hours = candles["close"].resample("1h").first().rename("hour").reset_index()
    left = candles[["close"]].reset_index()
    left.columns = ["ts", "close"]
    hours.columns = ["ts", "hour"]
    both = pd.merge_asof(left, hours, on="ts", direction="forward")  # <-- leak
    both.index = candles.index
    up = both["hour"] > both["close"]
    return up, ~up
