"The lowest low from here to the end."


def signals(candles):
    low = candles["low"]
    floor = low[::-1].expanding().min()[::-1]  # <-- leak
    room = candles["close"] / floor - 1
    return room < 0.002, room > 0.02
