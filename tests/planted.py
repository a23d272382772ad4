"Markets whose edge is known, and run folders whose trades are: for tests of what a run is doubted for."
import json
from functools import cache
from pathlib import Path

import numpy as np

from algo_kit.data.passport import passport
from algo_kit.data.tapes import Tape, open_tape, save_npy, trade_rows

SEC, DAY = 10**9, 86_400 * 10**9
T0 = 1_700_006_400 * SEC  # 2023-11-15T00:00Z


@cache
def swinging(hours=96, every_s=20, drift=.04, noise=4e-4, seed=0):
    "A tape of trades around a price that drifts up and down in turns of twelve hours: a channel breakout lives off it."
    n, rng = hours * 3600 // every_s, np.random.default_rng(seed)
    way = np.where((np.arange(n) * every_s // 43_200) % 2 == 0, 1, -1) * drift / (43_200 / every_s)
    px = np.round(10_000 * np.exp(np.cumsum(way + rng.normal(0, noise, n))), 1)
    ev = trade_rows(T0 + np.arange(n) * every_s * SEC, px, rng.uniform(.5, 2, n), rng.choice([-1, 1], n), np.arange(1, n + 1))
    return Tape("swinging", open_tape("sample").instruments, ev, passport(ev))


def saved(tape, path):
    "A tape as a file that every process can open."
    return save_npy(tape, path)


def planted_run(
    path,  # Folder to write
    pnl,  # Net P&L of each trade, quote currency
    entry_ts, exit_ts,  # ns; the round trips, in order
    fees=1.,  # Of each trade
    symbol="BTC/USD", side="long", exit_reason="exit_signal",  # One, or one for each
    cash=100_000., notional=10_000., days=40,
    lots_left=0, open_pnl=0.,  # What is still held at the end, and what it is worth
    gates=None, gaps=(), params=None, funding_paid=0., market=None, waits_s=.05, step_s=600, status="finished", strategy="planted",
):
    "A run folder with exactly these trades. `market`: a price for each row of equity; flat at 10,000 when None."
    import pyarrow as pa
    import pyarrow.parquet as pq
    d = Path(path)
    d.mkdir(parents=True, exist_ok=True)
    pnl = np.asarray(pnl, float)
    n = pnl.size
    each = lambda v, kind: np.array([v] * n if isinstance(v, (str, int, float)) else list(v), kind)
    a, b, fee = np.asarray(entry_ts, "i8"), np.asarray(exit_ts, "i8"), each(fees, float)
    sym, sd, why, wait = each(symbol, object), each(side, object), each(exit_reason, object), each(waits_s, float)
    names = list(dict.fromkeys(sym)) or ["BTC/USD"]
    ts = T0 + step_s * SEC * np.arange(int(days * 86_400 / step_s))
    px = np.full(ts.size, 10_000.) if market is None else np.asarray(market, float)
    booked, held = np.zeros(ts.size + 1), np.zeros((len(names), ts.size), "i8")
    np.add.at(booked, np.searchsorted(ts, b), pnl)
    for i in range(n): held[names.index(sym[i]), np.searchsorted(ts, a[i]):np.searchsorted(ts, b[i])] = 10**8
    eq = cash + np.cumsum(booked[:-1]) - funding_paid * np.linspace(0, 1, ts.size)
    eq[-1] += open_pnl
    held[0, -1] = lots_left
    entry_px = np.full(n, 10_000.)
    gross = pnl + fee
    exit_px = entry_px * (1 + np.where(sd == "long", 1, -1) * gross / notional)
    qty = notional / entry_px
    cols = lambda rows: {k: [r[k] for r in rows] for k in rows[0]} if rows else dict(ts=pa.array([], pa.int64()))
    trades, fills, dec = [], [], []
    for i in range(n):
        trades.append(dict(trade=i + 1, signal_id=2 * i + 1, strategy=strategy, symbol=sym[i], side=sd[i], confidence=1., entry_ts=int(a[i]),
                           exit_ts=int(b[i]), entry_px=entry_px[i],
                           exit_px=exit_px[i], qty=qty[i], fees=fee[i], gross=gross[i], pnl=pnl[i], ret=pnl[i] / notional, slippage_entry=0., slippage_exit=0.,
                           exec_ms_entry=70.,
                           exec_ms_exit=70., holding_s=(b[i] - a[i]) / 1e9, entry_reason="entry_signal", exit_reason=why[i], snap_0=0., snap_1=0., snap_2=0.,
                           snap_3=0.))
        for order, t, buy, p, reason in ((2 * i + 1, a[i], sd[i] == "long", entry_px[i], "entry_signal"),
                                         (2 * i + 2, b[i], sd[i] != "long", exit_px[i], why[i])):
            fills.append(dict(seq=order, ts=int(t), recv=int(t), order=order, trade_id=order, symbol=sym[i], side="buy" if buy else "sell", qty=qty[i],
                              price=p, notional=notional,
                              fee=fee[i] / 2, realised=0., liquidity="taker", reason=reason, arrival_px=p, qty_lots=10**8, px_ticks=int(p * 10)))
            dec.append(dict(seq=order, ts=int(t - wait[i] * SEC), wish="place", symbol=sym[i], side="buy" if buy else "sell", type="market", qty=qty[i],
                            price=0., stop=0., order=order,
                            reason=reason, gate="", value=0., threshold=0., strength=1., arrival_px=p, signal_id=2 * i + 1, snap_0=0., snap_1=0., snap_2=0.,
                            snap_3=0.))
    write = lambda name, c: pq.write_table(pa.table(c), d/f"{name}.parquet")
    expo = (held > 0).any(0) * notional
    write("equity", dict(ts_ns=ts, equity=eq, cash=eq - expo, exposure=expo, fees=np.full(ts.size, fee.sum())))
    write("marks", dict(ts_ns=np.repeat(ts, len(names)), row=np.tile(np.arange(len(names), dtype=np.int32), ts.size), px=np.repeat(px, len(names)),
                        lots=held.T.ravel()))
    write("trades", cols(trades))
    for name, rows in (("fills", fills), ("decisions", dec)): write(name, cols(sorted(rows, key=lambda r: r["ts"])))
    doc = lambda name, o: (d/name).write_text(json.dumps(o, indent=1))
    doc("manifest.json", dict(run=d.name, strategy=strategy, strategy_source="", params=dict(a=1.5, b=2) if params is None else params, seed=0,
                              stage="backtest", status=status,
                              started="2026-11-20T12:00:00Z", ended="2026-11-20T12:00:09Z", events=0, decisions=len(dec), orders=len(fills), fills=len(fills),
                              state_hash="0" * 16,
                              settings_digest="c41d0e77aa10", settings={"run.cash": cash}, code_digest="51ab77c0de99", versions={}, funding_paid=funding_paid,
                              data=[dict(source="planted", venue="bitfinex", symbol=s, kind="trades", rows=1, first_ts=int(ts[0]), last_ts=int(ts[-1]),
                                         hash="0" * 64) for s in names],
                              instruments=[dict(venue="bitfinex", symbol=s, market="spot", base=s.split("/")[0], quote="USD", tick="0.1", lot="0.00000001",
                                                maker="0.001", taker="0.002")
                                           for s in names], snapshot_names=[]))
    doc("gates.json", gates or dict(names=dict(cash="engine", trend="strategy"),
                                    gates=[dict(symbol=names[0], gate=g, passed=900, refused=400, last_value=1., last_threshold=2., last_verdict="pass")
                                           for g in ("cash", "trend")]))
    doc("passport.json", dict(rows=1, first_ts=int(ts[0]), last_ts=int(ts[-1]), duplicates=0, conflicting=0, out_of_order=0, bad_price=0, bad_size=0,
                              gap_no_trades=0,
                              gap_outage=sum(g["kind"] == "outage" for g in gaps), gap_feed_hole=sum(g["kind"] == "feed_hole" for g in gaps), gap_unknown=0,
                              gap_s=600., gaps=list(gaps),
                              verdict="ok", reasons=[]))
    doc("assumptions.json", [])
    return d
