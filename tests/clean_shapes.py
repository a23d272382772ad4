"Honest code in other shapes."
import numpy as np
import pandas as pd


def matrix_product(candles):
    r = candles["close"].pct_change().fillna(0)
    X = np.column_stack([r.shift(k).fillna(0) for k in range(5)])
    w = np.array([.3, -.2, .1, .05, -.4])
    s = X @ w
    return s


def full_convolution(candles):
    c = candles["close"].to_numpy()
    return np.convolve(c, np.ones(7) / 7, mode="full")[:len(c)]


def elementary_functions(candles):
    x = np.log(candles["close"].to_numpy())
    return pd.DataFrame(dict(a=np.tanh(np.exp(x - 4.6)), b=np.sin(x), c=np.sqrt(x), d=x ** 1.7, e=np.cumsum(x), f=np.arctan(x)), candles.index)


def windows_of_time(candles):
    c = candles["close"]
    return pd.DataFrame(dict(a=c.ewm(halflife=pd.Timedelta("1h"), times=c.index).mean(), b=c.rolling("1h").std(), c=c.rolling(30).corr(candles["volume"]),
                             d=c.rolling(20).skew(), e=c.rolling(10).median()))


def day_before(candles):
    day = candles.index.normalize()
    prev = candles.groupby(day)["close"].shift(1)
    daily = candles.resample("1D").agg({"high": "max", "close": "last"}).shift(1)
    d = candles.join(daily["high"].reindex(candles.index, method="ffill"), rsuffix="_prev")
    return d["close"] > d["high_prev"], d["close"] < prev


def seeded_noise(candles):
    noise = np.random.default_rng(0).normal(size=len(candles))
    return candles["close"] + .01 * noise


def loop_with_state(candles):
    c = candles["close"].to_numpy()
    n = len(c)
    out = np.empty(n)
    ema, pos, best = c[0], 0, 0.
    for i in range(n):
        ema += (c[i] - ema) / 20
        if pos == 0 and c[i] > ema * 1.001:
            pos, best = 1, c[i]
        elif pos == 1:
            best = max(best, c[i])
            if c[i] < best * .995:
                pos = 0
        out[i] = pos
    return out


def channel(candles):
    d = candles.copy()
    d["hh"] = d["high"].rolling(20).max().shift(1)
    d["atr"] = (d["high"] - d["low"]).ewm(alpha=1 / 14, adjust=False).mean()
    d = d.dropna()
    return d["close"] > d["hh"], d["close"] < d["hh"] - 3 * d["atr"]


def scaled_on_the_first(candles):
    from sklearn.preprocessing import StandardScaler
    X = candles[["close", "volume"]].to_numpy()
    sc = StandardScaler().fit(X[:200])
    Z = sc.transform(X)
    Z[:200] = np.nan
    return pd.DataFrame(Z, candles.index, columns=["c", "v"])


def hourly_output(candles):
    h = candles.resample("1h").agg({"open": "first", "high": "max", "low": "min", "close": "last"})
    return h["close"].rolling(3).mean()


def sessions(candles):
    c = candles["close"]
    sess = (candles.index.hour >= 8) & (candles.index.hour < 16)
    block = (sess & ~np.r_[False, sess[:-1]]).cumsum()
    ret = c.pct_change().where(sess)
    cum = ret.groupby(block).cumsum()
    return cum > .002, cum < -.002


def expanding_order(candles):
    med = candles["close"].expanding().median()
    q = candles["volume"].expanding(20).quantile(.7)
    r = candles["close"].expanding().rank(pct=True)
    return (candles["close"] > med) & (candles["volume"] > q), r < .2


def last_sign(candles):
    c = candles["close"]
    sig = np.where(c > c.shift(3), 1, np.where(c < c.shift(3), -1, 0))
    pos = pd.Series(sig, c.index).replace(0, np.nan).ffill().fillna(0)
    return pos.astype(int)


def strided_window(candles):
    from numpy.lib.stride_tricks import sliding_window_view
    c = candles["close"].to_numpy()
    w = sliding_window_view(c, 24)
    out = np.full(len(c), np.nan)
    out[23:] = (c[23:] - w.mean(1)) / w.std(1)
    return pd.Series(out, candles.index)
