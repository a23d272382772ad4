"A funding rate known every eight hours, drawn as a line between them."


def rate(candles):
    hours = candles.index.hour
    known = (candles["close"] / candles["open"] - 1).where((hours % 8 == 0) & (candles.index.minute == 0))
    return known.interpolate()  # <-- leak


def signals(candles):
    r = rate(candles)
    rising = r.diff() > 0
    return rising & (r < 0), ~rising
