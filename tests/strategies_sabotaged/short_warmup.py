"An average that remembers for weeks, in a window of three hours."
from algo_kit.core.params import Param
from algo_kit.strategies.contract import pandas_strategy


def signals(candles, slow=300, **_):
    c = candles["close"]
    fast = c.ewm(span=10).mean()
    base = c.ewm(span=slow).mean()  # <-- leak
    above = fast > base
    return above & ~above.shift(fill_value=False), ~above & above.shift(fill_value=False)


short_warmup = pandas_strategy("short_warmup", "a window shorter than its memory", signals,
    (Param("slow", 300, 10, 1000, "candles", "slow mean"),), timeframe="5m", window_bars=36)
