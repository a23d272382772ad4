"Rank and quantile of a window that ends here."


def signals(candles):
    c = candles["close"]
    rank = c.rolling(96).rank(pct=True)
    high = c.rolling(96).quantile(0.9)
    return (rank > 0.95) & (c >= high), rank < 0.5
