"Newest first and back again."


def signals(candles):
    newest_first = candles["close"][::-1]
    c = newest_first[::-1]
    m = c.rolling(30).mean()
    weights = [3, 2, 1][::-1]
    w = c.rolling(3).apply(lambda x: (x * weights).sum() / 6, raw=True)
    return w > m, w < m
