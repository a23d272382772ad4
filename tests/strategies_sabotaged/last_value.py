"Indexed to the last close of the file."


def signals(candles):
    c = candles["close"]
    last = c.iloc[-1]  # <-- leak
    rel = c / last
    return rel < 0.98, rel > 1.0
