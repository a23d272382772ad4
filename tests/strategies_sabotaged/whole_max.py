"A drawdown from a peak that comes later."


def peak(x):
    return x.max()  # <-- leak


def signals(candles):
    c = candles["close"]
    top = peak(c)
    depth = 1 - c / top
    return depth > 0.05, depth < 0.01
