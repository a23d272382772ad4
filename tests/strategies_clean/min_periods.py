"Windows that start before they are full."


def signals(candles):
    c = candles["close"]
    top = c.rolling(48, min_periods=5).max()
    low = c.rolling(48, min_periods=1).min()
    place = (c - low) / (top - low)
    return place > 0.8, place < 0.2
