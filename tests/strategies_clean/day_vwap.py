"Volume-weighted price since midnight."


def signals(candles):
    day = candles.index.normalize()
    money = (candles["close"] * candles["volume"]).groupby(day).cumsum()
    vwap = money / candles["volume"].groupby(day).cumsum()
    return candles["close"] < vwap * 0.998, candles["close"] > vwap
