"A run folder made up by a seeded random walk: the engine's schema without the engine."
# ruff: noqa: E501
import json
from pathlib import Path

import numpy as np

SEC = 1_000_000_000
T0 = 1_562_752_865_000_000_000  # 2019-07-10T10:01:05Z
REASONS = ["trailing_stop", "price_drops", "exit_signal"]


def toy_run(
    path,  # Folder to write
    days=6.4, trades=140, symbol="BTC/USD", seed=1, cash=100_000., flat=False, symbols=1, start=T0, stage="paper",
):
    "Write a run folder and hand back its path. `trades=0` decides nothing; `flat` leaves equity at `cash`."
    import pyarrow as pa, pyarrow.parquet as pq
    d = Path(path); d.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    n = max(2, int(days * 1440))
    ts = start + 60 * SEC * np.arange(n)
    names = [symbol] + [f"ALT{i}/USD" for i in range(1, symbols)]
    vol = .0009 * np.exp(.6 * np.sin(np.arange(n) / 180))
    px = np.array([12_600 * .4**j * np.exp(np.cumsum(rng.normal(-1.5e-5, 1, n) * vol)) for j in range(symbols)])
    lots = np.zeros((symbols, n), np.int64); cashes, fees = np.full(n, cash), np.zeros(n)
    F, T, D = [], [], []
    slot = n // max(1, trades // symbols + 1)
    for k in range(trades):
        j = k % symbols
        i, hold = (k // symbols) * slot + int(rng.integers(1, max(2, slot // 3))), int(np.clip(rng.exponential(slot / 4), 1, max(1, slot // 2)))
        if i + hold >= n - 1: break
        q = round(.2 * cash / px[j, i], 6); e, x = px[j, i] * 1.0001, px[j, i + hold] * .9999
        f = [.0002 * q * p for p in (e, x)]
        why, sig = str(rng.choice(REASONS, p=[.55, .35, .1])), k + 1
        snap = [float(rng.uniform(2.5, 6)), float(rng.integers(5, 60)), float(rng.uniform(1, 30)), float(rng.uniform(.5, 1))]
        for side, t, p, fee, reason, arr in (("buy", i, e, f[0], "entry_signal", px[j, i]), ("sell", i + hold, x, f[1], why, px[j, i + hold])):
            F.append(dict(seq=int(t * 40), ts=int(ts[t]), recv=int(ts[t]) + 20_000_000, order=len(F) + 1, trade_id=len(F) + 1, symbol=names[j], side=side, qty=q, price=p, notional=q * p, fee=fee,
                          realised=0. if side == "buy" else q * (x - e), liquidity="taker", reason=reason, arrival_px=arr, qty_lots=round(q * 1e8), px_ticks=round(p * 10)))
            D.append(dict(seq=int(t * 40), ts=int(ts[t]), wish="place", symbol=names[j], side=side, type="market", qty=q, price=0., order=len(F), reason=reason, gate="", value=snap[0],
                          threshold=2.5, strength=snap[3], arrival_px=arr, signal_id=sig, **{f"snap_{m}": v for m, v in enumerate(snap)}))
        T.append(dict(trade=k + 1, signal_id=sig, strategy="order_flow", symbol=names[j], side="long", confidence=snap[3], entry_ts=int(ts[i]), exit_ts=int(ts[i + hold]), entry_px=e, exit_px=x, qty=q,
                      fees=sum(f), gross=q * (x - e), pnl=q * (x - e) - sum(f), ret=(q * (x - e) - sum(f)) / (q * e), slippage_entry=1e-4, slippage_exit=1e-4, exec_ms_entry=70., exec_ms_exit=72.,
                      holding_s=60. * hold, entry_reason="entry_signal", exit_reason=why, **{f"snap_{m}": v for m, v in enumerate(snap)}))
        lots[j, i:i + hold] = round(q * 1e8)
        cashes[i:] -= q * e + f[0]; cashes[i + hold:] += q * x - f[1]; fees[i:] += f[0]; fees[i + hold:] += f[1]
    for k in range(trades // 6):
        t = int(rng.integers(0, n))
        D.append(dict(seq=t * 40, ts=int(ts[t]), wish="place", symbol=names[0], side="buy", type="market", qty=.1, price=0., order=0, reason="entry_signal", gate="max_position", value=1.2, threshold=1.,
                      strength=.6, arrival_px=px[0, t], signal_id=1000 + k, snap_0=0., snap_1=0., snap_2=0., snap_3=0.))
    expo = (lots * px / 1e8).sum(0)
    eq = np.full(n, cash) if flat else cashes + expo
    if flat: cashes, fees, F, T = np.full(n, cash), np.zeros(n), [], []
    rows = np.tile(np.arange(symbols, dtype=np.int32), n)
    write = lambda name, cols: pq.write_table(pa.table(cols), d/f"{name}.parquet")
    write("equity", dict(ts_ns=ts, equity=eq, cash=cashes, exposure=expo, fees=fees))
    write("marks", dict(ts_ns=np.repeat(ts, symbols), row=rows, px=px.T.ravel(), lots=lots.T.ravel()))
    for name, R in (("fills", F), ("trades", T), ("decisions", sorted(D, key=lambda r: r["seq"]))):
        write(name, {k: [r[k] for r in R] for k in R[0]} if R else dict(ts=pa.array([], pa.int64())))
    doc = lambda name, o: (d/name).write_text(json.dumps(o, indent=1))
    doc("manifest.json", dict(run=d.name, strategy="order_flow", params=dict(window_s=30., ratio=2.5, min_trades=5, trail=.005), seed=0, stage=stage, status="finished",
                              started="2026-11-20T12:00:00Z", ended="2026-11-20T12:00:09Z", events=n * 40, decisions=len(D), orders=len(F), fills=len(F), state_hash="9f2c6e0b41d7a835",
                              settings_digest="c41d0e77aa10", settings={"run.cash": cash, "venue.slippage_bps": 1.0, "venue.order_latency_ms": 50.0}, code_digest="51ab77c0de99",
                              versions=dict(algo_kit="0.1.0", numpy=np.__version__, python="3.11.9"), durability=dict(sync="group", sync_ms=50),
                              data=[dict(source="sample", venue="bitfinex", symbol=s, kind="trades", rows=n * 40, first_ts=int(ts[0]), last_ts=int(ts[-1]), hash="e3b0c442" * 8) for s in names],
                              instruments=[dict(venue="bitfinex", symbol=s, market="spot", base=s.split("/")[0], quote="USD", tick="0.1", lot="0.00000001", maker="0.001", taker="0.002") for s in names],
                              snapshot_names=["ratio", "trades", "volume", "strength"]))
    g = dict(min_trades=(n * .7, n * .3, 9., 5.), ratio=(n * .06, n * .64, 1.7, 2.5), large_trade=(n * .05, n * .01, .2, 1.), flat=(n * .03, n * .02, 0., 0.), max_position=(trades, trades // 6, .4, 1.)) if trades else {}
    doc("gates.json", dict(names={}, gates=[dict(symbol=s, gate=k, passed=int(a), refused=int(b), last_value=v, last_threshold=w, last_verdict="passed") for s in names for k, (a, b, v, w) in g.items()]))
    hole = dict(kind="outage", row=0, from_ns=int(ts[n // 3]), to_ns=int(ts[n // 3 + n // 60]), seconds=60. * (n // 60), missing=0, evidence="bars: the venue wrote zeros")
    doc("passport.json", dict(rows=n * 40, first_ts=int(ts[0]), last_ts=int(ts[-1]), duplicates=0, conflicting=0, out_of_order=0, bad_price=0, bad_size=0, gap_no_trades=0, gap_outage=1,
                              gap_feed_hole=0, gap_unknown=0, gap_s=600.0, gaps=[hole], trades_with_id=n * 40, ids="no evidence", verdict="ok", reasons=[], instruments=[f"bitfinex:{s} (table)" for s in names]))
    doc("assumptions.json", [dict(topic="Market orders", modelled=True, how="filled at the first trade after arrival, 1 bps worse"), dict(topic="Latency", modelled=True, how="20 ms feed, 50 ms order, 50 ms answer"),
                             dict(topic="Market impact", modelled=False, how="our size moves nothing"), dict(topic="Funding", modelled=False, value="spot pays none")])
    return d


def toy_scalper(path, trades=80, hours=8., seed=7, cash=100_000., symbol="BTC/USD", fee=.001, levels=True):
    "A run folder of a scalper with the four levels: stops stated at entry, delays written down with the exits, verdicts that change."
    import pyarrow as pa, pyarrow.parquet as pq
    d = toy_run(path, days=hours / 24, trades=0, cash=cash, symbol=symbol)
    rng = np.random.default_rng(seed)
    F, T, D = [], [], []
    at = T0 + np.sort(rng.choice(np.arange(60, int(hours * 3600) - 1300, 240), trades, replace=False)) * SEC if trades else []
    for k, t in enumerate(np.asarray(at, np.int64).tolist()):
        side, px, q = int(rng.choice([1, -1])), 12_000. + float(rng.normal(0, 90)), round(.05 * cash / 12_000, 6)
        hold, move = int(np.clip(rng.lognormal(4.7, .7), 4, 1200)), float(rng.normal(.0004, .0045))
        e, x = px, px * (1 + side * max(move, -.0052))
        why = str(rng.choice(["cascade_reversal", "price_drops"], p=[.4, .6])) if move > -.0042 else "stop_loss"
        delay = float(rng.choice([1., 2., 3., 4., 5., 7.], p=[.2, .3, .2, .15, .1, .05]))
        gross, fees = q * (x - e) * side, fee * q * (e + x)
        oe, ox, end = 2 * k + 1, 2 * k + 2, t + hold * SEC
        none = dict(snap_0=0., snap_1=0., snap_2=0., snap_3=0.)
        for order, ts, buy, p, typ, reason, stop, snap, gate in (
                (oe, t, side > 0, e, "market", "entry_signal", e * (1 - side * .004), none | dict(snap_0=.8, snap_1=2.4), ""),
                (ox, t if why == "stop_loss" else end, side < 0, x, "stop" if why == "stop_loss" else "market", why, x if why == "stop_loss" else 0.,
                 none if why == "stop_loss" else none | dict(snap_0=delay), "")):
            D.append(dict(seq=ts // SEC, ts=ts, wish="place", symbol=symbol, side="buy" if buy else "sell", type=typ, qty=q, price=0., stop=stop, reduce_only=order == ox, order=order, reason=reason,
                          gate=gate, value=0., threshold=0., strength=.8, arrival_px=p * (1 - side * 1e-4), signal_id=oe, **snap))
        for order, ts, buy, p, reason in ((oe, t, side > 0, e, "entry_signal"), (ox, end, side < 0, x, why)):
            F.append(dict(seq=ts // SEC, ts=ts, recv=ts, order=order, trade_id=order, symbol=symbol, side="buy" if buy else "sell", qty=q, price=p, notional=q * p, fee=fee * q * p,
                          realised=gross if order == ox else 0., liquidity="taker", reason=reason, arrival_px=p, qty_lots=round(q * 1e8), px_ticks=round(p * 10)))
        T.append(dict(trade=k + 1, signal_id=oe, strategy="scalper", symbol=symbol, side="long" if side > 0 else "short", confidence=.8, entry_ts=t, exit_ts=end, entry_px=e, exit_px=x, qty=q,
                      fees=fees, gross=gross, pnl=gross - fees, ret=(gross - fees) / (q * e), slippage_entry=0., slippage_exit=0., exec_ms_entry=70., exec_ms_exit=70., holding_s=float(hold),
                      entry_reason="entry_signal", exit_reason=why, snap_0=.8, snap_1=2.4, snap_2=0., snap_3=0.))
    write = lambda name, cols: pq.write_table(pa.table(cols), d/f"{name}.parquet")
    for name, R in (("fills", F), ("trades", T), ("decisions", sorted(D, key=lambda r: r["seq"]))):
        write(name, {k: [r[k] for r in R] for k in R[0]} if R else dict(ts=pa.array([], pa.int64())))
    chain = dict(trend=(5_200, 9_200), zone=(1_500, 3_700), cascade=(260, 1_240), bounce=(trades, 260 - trades)) if levels else dict(flat=(90, 10))
    (d/"gates.json").write_text(json.dumps(dict(names=dict(cash="engine", **dict.fromkeys(chain, "strategy")), gates=[
        dict(symbol=symbol, gate=g, passed=p, refused=r, last_value=1., last_threshold=2., last_verdict="refuse") for g, (p, r) in chain.items()])))
    ts = np.sort(rng.integers(0, int(hours * 3600), 300)) * SEC + T0
    write("verdicts", dict(seq=np.arange(300), ts=ts, symbol=[symbol] * 300, gate=[list(chain)[i] for i in rng.integers(0, len(chain), 300)],
                           verdict=rng.choice(np.array([-1, 1], np.int8), 300), value=rng.normal(size=300), threshold=np.ones(300)))
    m = json.loads((d/"manifest.json").read_text()) | dict(strategy="scalper", decisions=len(D), orders=len(D), fills=len(F))
    (d/"manifest.json").write_text(json.dumps(m))
    return d
