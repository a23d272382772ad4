"Buys dips that will recover."


def signals(candles):
    c = candles["close"]
    ahead = c.shift(-1) / c - 1  # <-- leak
    dip = c.pct_change() < -0.002
    entries = dip & (ahead > 0)
    return entries, ~entries
