"A z-score against everything that was known by then."


def signals(candles):
    c = candles["close"]
    mean, std = c.expanding(30).mean(), c.expanding(30).std()
    z = (c - mean) / std
    return z < -1, z > 0
