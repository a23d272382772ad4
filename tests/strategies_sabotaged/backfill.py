"Prices of quiet bars are filled from the wrong side."


def signals(candles):
    loud = candles["volume"] > candles["volume"].rolling(20).mean()
    px = candles["close"].where(loud)
    px = px.bfill()  # <-- leak
    gap = px / candles["close"] - 1
    return gap > 0.001, gap < -0.001
