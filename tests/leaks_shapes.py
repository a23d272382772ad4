"Leaks in other shapes of code: each function looks ahead in the line that is marked."
import numpy as np
import pandas as pd


def assigned(candles):
    d = candles.assign(fwd=lambda x: x["close"].shift(-3))  # <-- leak
    d = d.assign(ret=d["close"].pct_change())
    return d["fwd"] > d["close"], d["ret"] < 0


def in_a_loop(candles):
    c = candles["close"]
    d = pd.DataFrame(index=c.index)
    for k in range(3):
        d[f"l{k}"] = c.shift(-k)  # <-- leak
    s = d.mean(axis=1)
    return s > c, s < c


def comprehension(candles):
    x = candles["close"].tolist()
    nxt = [x[min(i + 1, len(x) - 1)] for i in range(len(x))]  # <-- leak
    up = np.array(nxt) > np.array(x)
    return up, ~up


def scaler(candles):
    from sklearn.preprocessing import StandardScaler
    X = candles[["close", "volume"]].pct_change().fillna(0).to_numpy()
    sc = StandardScaler()
    Z = sc.fit_transform(X)  # <-- leak
    s = Z[:, 0] - Z[:, 1]
    return pd.Series(s > 0, candles.index), pd.Series(s < 0, candles.index)


def fitted_on_tomorrow(candles):
    from sklearn.linear_model import LogisticRegression
    r = candles["close"].pct_change().fillna(0)
    X = np.column_stack([r, r.shift(1).fillna(0)]) * 100
    y = (r.shift(-1) > 0).to_numpy()  # <-- leak
    model = LogisticRegression()
    model.fit(X, y)  # <-- leak
    p = model.predict_proba(X)[:, 1]
    return pd.Series(p > .5, candles.index), pd.Series(p < .5, candles.index)


def one_bar(candles):
    c = candles["close"]
    out = c.diff()
    k = 777
    if len(out) > k + 1:
        out.iloc[k] = c.iloc[k + 1]  # <-- leak
    return out


class Feat:
    def __init__(self, df):
        self.df = df
        self.mu = df["close"].mean()  # <-- leak

    def z(self):
        return self.df["close"] - self.mu


def in_a_constructor(candles):
    ft = Feat(candles)
    z = ft.z()
    return z > 0, z < 0


def in_a_dict(candles):
    c = candles["close"]
    feats = {}
    feats["m"] = c.rolling(5).mean()
    feats["x"] = c.shift(-1)  # <-- leak
    df = pd.DataFrame(feats)
    return df["x"] > df["m"], df["x"] < df["m"]


def in_a_matrix(candles):
    c = candles["close"].to_numpy()
    X = np.column_stack([c, c, c])
    X[:, 1] = np.roll(X[:, 1], -1)  # <-- leak
    s = X[:, 1] - X[:, 0]
    return pd.DataFrame(dict(s=s), candles.index)


def ranked(candles):
    r = candles["close"].rank(pct=True)  # <-- leak
    return r < .1, r > .9


def straight_line(candles):
    y = candles["close"].to_numpy()
    t = np.arange(len(y))
    coef = np.polyfit(t, y, 1)  # <-- leak
    line = np.polyval(coef, t)
    return pd.Series(y < line, candles.index), pd.Series(y > line, candles.index)


def joined_day(candles):
    daily = candles.resample("1D").agg({"high": "max", "low": "min"})
    wide = daily["high"].reindex(candles.index, method="ffill")  # <-- leak
    d = candles.join(wide, rsuffix="_d")
    return d["close"] > .99 * d["high_d"], d["close"] < .98 * d["high_d"]


def row_by_row(candles):
    s = candles.iloc[:400].apply(lambda r: candles["close"].max() - r["close"], axis=1)  # <-- leak
    return s


def piped(candles):
    return candles.pipe(_add).pipe(_cut)


def _add(d):
    d = d.copy()
    d["lead"] = d["close"].diff(-2)  # <-- leak
    return d


def _cut(d):
    e = d["lead"] > 0
    return e, ~e


def sorted_in_place(candles):
    d = candles.copy()
    d.sort_values("volume", inplace=True)
    d["rank"] = np.arange(len(d))  # <-- leak
    d.sort_index(inplace=True)
    return d["rank"] > 1000


def caught_index_error(candles):
    c = candles["close"].to_numpy()
    out = np.zeros(len(c))
    i = 0
    while i < len(c):
        try:
            out[i] = c[i + 2] - c[i]  # <-- leak
        except IndexError:
            out[i] = np.nan
        i += 1
    return out


def reversed_window(candles):
    hi = candles["high"]
    fut = hi[::-1].rolling(12).max()[::-1]  # <-- leak
    return (fut / candles["close"] - 1) > .004


def quantile_of_all(candles):
    c = candles["close"]
    vol = c.pct_change().rolling(30).std()
    q = vol.quantile(.8)  # <-- leak
    hot = vol > q
    sma = c.rolling(20).mean()
    return hot & (c > sma), hot & (c < sma)


def same_convolution(candles):
    c = candles["close"]
    w = np.hanning(9)
    s = np.convolve(c, w / w.sum(), mode="same")  # <-- leak
    return pd.Series(s, c.index).diff() > 0


def interpolated_hours(candles):
    c = candles["close"]
    hour = c.resample("1h").mean()
    h = hour.reindex(c.index).interpolate()  # <-- leak
    return h > c


def day_by_day(candles):
    g = candles.groupby(candles.index.date)
    out = []
    for _, day in g:
        out.append((day["close"] - day["close"].mean()) / day["close"].std())  # <-- leak
    z = pd.concat(out)
    return z > 1, z < -1
