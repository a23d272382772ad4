"A pandas strategy whose window is as long as it says."
from algo_kit.core.params import Param
from algo_kit.strategies.contract import pandas_strategy


def signals(candles, slow=40, **_):
    c = candles["close"]
    fast, base = c.rolling(8).mean(), c.rolling(slow).mean()
    above = (fast > base) & base.notna()
    known = base.shift().notna()
    return above & ~above.shift(fill_value=False) & known, ~above & above.shift(fill_value=False)


own_window = pandas_strategy("own_window", "a window that is long enough", signals,
    (Param("slow", 40, 10, 90, "candles", "slow mean"),), timeframe="5m", window_bars=100)
