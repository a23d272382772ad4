"Two exponential means: they never forget, and never look ahead."


def signals(candles):
    c = candles["close"]
    fast, slow = c.ewm(span=12).mean(), c.ewm(span=48, adjust=False).mean()
    above = fast > slow
    return above & ~above.shift(fill_value=False), ~above & above.shift(fill_value=False)
