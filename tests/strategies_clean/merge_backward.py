"Joins the last hour that had closed, by the time it closed."
import pandas as pd


def signals(candles):
    hours = candles["close"].resample("1h").last().rename("hour").reset_index()
    hours.columns = ["ts", "hour"]
    hours["ts"] = hours["ts"] + pd.Timedelta("1h")
    left = candles[["close"]].reset_index()
    left.columns = ["ts", "close"]
    both = pd.merge_asof(left, hours, on="ts", direction="backward")
    both.index = candles.index
    return both["close"] > both["hour"], both["close"] < both["hour"]
