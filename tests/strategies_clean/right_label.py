"Hours stamped by their end may be used from their end on."


def signals(candles):
    c = candles["close"]
    hours = c.resample("1h", label="right", closed="left").last()
    known = hours.reindex(c.index, method="ffill")
    return c > known, c < known
