"A Butterworth filter, run forwards only."
import pandas as pd
from scipy.signal import butter, lfilter, lfilter_zi


def signals(candles):
    c = candles["close"].to_numpy()
    b, a = butter(2, 0.1)
    y, _ = lfilter(b, a, c, zi=lfilter_zi(b, a) * c[0])
    s = pd.Series(y, candles.index)
    return s.diff() > 0, s.diff() < 0
