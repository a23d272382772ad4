"The last of a window is the newest of the past."


def signals(candles):
    c = candles["close"]
    move = c.rolling(12).apply(lambda w: w[-1] / w[-12] - 1, raw=True)
    tail = c.rolling(12).apply(lambda w: w[-3:].mean(), raw=True)
    return (move > 0.003) & (c > tail), move < -0.003
