"What must be true, checked against the venue's own books: while it happens, and when it is quiet."
import struct
from collections import Counter, defaultdict, deque
from decimal import Decimal
from functools import cache

import numpy as np

from algo_kit.adapters.managed import OVER
from algo_kit.adapters.protocol import TAKEN, ClientIds, id_number
from algo_kit.core.records import (ACK, AMEND, BUY, CANCEL, CANCELED, EXPIRED, FILL, FILLED, LIMIT, MARKET, PLACE, REJECT, SELL, STATE_NAMES, STOP,
                                   decision_dt, event_dt)
from algo_kit.engine.journal import HEAD, INSERT, OUT, scan, unpack_out
from algo_kit.engine.session import Walk
from algo_kit.strategies.contract import ENGINE_GATES

from .clockwork import S

MINUTE = 60 * S
FINITE, RATE = ENGINE_GATES.index("finite") + 1, ENGINE_GATES.index("order_rate") + 1

class Watch:
    "Everything that is held against a day."
    def __init__(self, day):
        self.day, self.found, self.ids = day, [], ClientIds(day.run)
        self.parse = cache(self.ids.parse)
        self.intents, self.most, self.unsynced = {}, {}, 0  # order -> (decision, end of its frame); the most lots it may ever trade
        self.flying = {}  # client id -> (process, order) that left and has not arrived
        self.accepted, self.first_sent, self.sends = Counter(), {}, deque()
        self.done, self.seen_trades, self.external = Counter(), 0, defaultdict(list)
        self.held, self.whole = Counter(), {}  # lots of ours by the venue's trades; order for whatever is held -> the most that was held while it stood
        self.kinds, self.alive_at, self.placed_at = Counter(), 0, 0
        self.prices, self.heard = defaultdict(deque), {}  # symbol -> (ts, px) printed lately; when news of it last reached the process
        self.ends, self.taken_at, self.mode_at, self.lever_at = [], {}, 0, 0
        self.lots_told, self.asked_whole = Counter(), Counter()  # as the engine was told: lots of a row; order for whatever is held -> most that it may ask for
        self.told = {}  # (row, number of a trade) -> the input with which the engine was told
        self.cancels, self.amends, self.decided = {}, defaultdict(set), {}  # order -> when it was to be cancelled; the sizes it was to have; last amended
        self.last_lots = {}  # order -> lots of what was sent last for it
        self.amended_at = {}  # order -> when another size or price was last decided
        self.rows = {i.symbol: n for n, i in enumerate(day.listed)}
    def anchored(self, n):
        "Where the `n`th frame ends."
        from algo_kit.engine.journal import scan
        f = scan(self.day.home/"journal"/"journal.bin", verify=False).frames[n - 1]
        return f[2] + f[3] + 32

    def broke(self, inv, what):
        if len(self.found) < 20: self.found.append((inv, (self.day.world.now - self.day.t0) / S, what))

    # the journal, as it is written
    def wrote(self, path, at, data):
        day = self.day
        self.ends.append(at + len(data))
        if len(data) < HEAD.size: return
        _, kind, n, _ = HEAD.unpack_from(data)
        end, body = at + len(data), data[HEAD.size:HEAD.size + n]
        if kind == OUT:
            counts = struct.unpack_from("<6I", body)
            if not counts[1]: return
            for d in np.frombuffer(body, decision_dt, counts[1], 24 + counts[0] * event_dt.itemsize).tolist():
                d = dict(zip(decision_dt.names, d, strict=True))
                if d["gate"]:
                    day.said.gate(int(d["gate"]))
                    if d["gate"] == FINITE: day.count("RK-6")
                    elif d["gate"] == RATE: day.count("RK-7")
                    continue
                if d["px"]: day.count("OR-5")
                o = int(d["order"])
                if d["wish"] == PLACE:
                    self.intents[o], self.most[o] = (d, end), int(d["qty"])
                    if d["reduce_only"] and d["type"] >= STOP and not d["parent"]:
                        self.whole[o], self.asked_whole[o] = self.now_held(d["row"]), abs(self.lots_told[int(d["row"])])
                elif d["wish"] == CANCEL: self.cancels.setdefault(o, day.world.now)
                elif d["wish"] == AMEND:
                    self.most[o] = max(self.most.get(o, 0), int(d["qty"]))
                    self.amends[o].add(int(d["qty"]))
                    self.amended_at[o] = day.world.now
                    self.decided[o] = int(d["ts"])
        elif kind == INSERT:
            for e in np.frombuffer(body, event_dt):
                day.said.event(int(e["kind"]))
                if e["kind"] == ACK: self.acked(int(e["spare"]))
                elif e["kind"] == FILL: self.heard_fill(e)
    def plain(self, n):
        "Is wish `n` an order by itself? Children, pairs and reductions are sized by what there is to protect."
        d = self.intents[n][0] if n in self.intents else None
        return d is not None and not (d["parent"] or d["group"] or d["reduce_only"])
    def acked(self, n):
        "I4: nothing is said to be accepted that the venue has not accepted."
        if not self.plain(n) or self.intents[n][0]["type"] not in (LIMIT, MARKET): return
        if not self.accepted[self.ids.make(n)] and not any(self.parse(i)[0] == n for i in self.accepted):
            self.broke("I4", f"order {n} is said to be accepted, and the venue never took it")

    def heard_fill(self, e):
        "The engine is told of a trade: what a stop for whatever is held may ask for follows that, in the order in which it is told (OR-11)."
        row = int(e["row"])
        self.told[row, int(e["ref"])] = int(e["seq"])
        self.lots_told[row] += int(e["side"]) * int(e["qty"])
        for n in self.whole:
            if self.intents[n][0]["row"] == row: self.asked_whole[n] = max(self.asked_whole[n], self.done[n] + abs(self.lots_told[row]))
    def now_held(self, row): return abs(self.held[self.day.listed[int(row)].symbol])
    def allowed(self, n):
        "The most that wish `n` may ever trade."
        return max(self.most.get(n, 0), self.whole.get(n, 0))

    # requests leave
    def sent(self, proc, kind, what, order):
        day, now = self.day, self.day.world.now
        if kind not in ("place", "amend"): return
        name = self.parse(what[0] or "")
        if name is None: return self.broke("I3", f"{proc} sends {kind} {what[0]!r}, which is no name of this run")
        got = self.intents.get(name[0])
        path = str(day.home/"journal"/"journal.bin")
        if got is None: return self.broke("I8", f"{kind} of wish {name[0]} leaves and was never written down")
        if got[1] > day.disk.synced.get(path, 0): self.broke("I8", f"{kind} of wish {name[0]} leaves before it is synced")
        if kind != "place": return
        d = got[0]
        risk = not order.reduce_only and not d["reduce_only"]
        if risk:
            held = day.kitdb._do("select token, until_boot_ns from leases where account=? and strategy=?", day.account.name, day.strategy.name)
            if not held or held[0][0] != proc.token:
                self.broke("I9", f"{proc} places {what[0]} with token {proc.token}; the lease has {held[0][0] if held else 'nobody'}")
            elif held[0][1] <= proc.now() - day.t0:
                self.broke("I9", f"{proc} places {what[0]} on a lease that ran out {(proc.now() - day.t0 - held[0][1]) / S:.1f} s ago")
        most = max(self.allowed(name[0]), self.asked_whole[name[0]])
        if order.lots > most: self.broke("I3", f"{what[0]} asks for {order.lots} lots, wished were {most}")
        first = what[0] not in self.first_sent
        self._again(what[0], name, order)
        if risk and first: self._limits(proc, order, d)
        if risk and first:
            self.sends.append(now)
            while self.sends and self.sends[0] < now - MINUTE: self.sends.popleft()
            if len(self.sends) > day.settings.risk.max_orders_per_minute: self.broke("I5", f"{len(self.sends)} orders within a minute")
        if risk and first: self._data(proc, order, d)
        decided = max(int(d["ts"]), self.decided.get(name[0], 0))  # an amendment that another order carries out is a decision of its own
        less = name[1] and order.lots < self.last_lots.get(name[0], 0)  # what is left of one of a group, in the place of what lay there
        self.last_lots[name[0]] = order.lots
        if risk and not less and now - (decided - proc.skew) > 90 * S + abs(proc.skew):
            self.broke("I6", f"{what[0]} leaves {(now - decided) / S:.0f} s after it was decided")
        if risk and self.mode_at and now > self.mode_at + 60 * S:
            self.broke("I10", f"{what[0]} leaves, and the mode of the account was changed {(now - self.mode_at) / S:.0f} s ago")
        if risk and self.lever_at and now > self.lever_at + 60 * S:
            row = [i.symbol for i in day.listed].index(order.symbol)
            ours, theirs = (int(w.rows["ins"]["margin_e8"][row]) for w in (proc.session.world, day.account.world))
            if ours < theirs:
                self.broke("I5", f"{what[0]} leaves at {1e8 / ours:g} times, {(now - self.lever_at) / S:.0f} s after the venue went to {1e8 / theirs:g}")
        if proc.now() < proc.patient_until - S // 10:  # in its own time: the disk may have held it since the callback began
            self.broke("I10", f"{what[0]} leaves {(proc.patient_until - proc.now()) / S:.1f} s before the venue's patience is over")
        if risk and day.halted_at and now > day.halted_at + S // 2:
            self.broke("I10", f"{what[0]} leaves {(now - day.halted_at) / S:.1f} s after the stop button")
        self.first_sent.setdefault(what[0], now)
        self.flying[what[0]] = (proc, order)
        if risk: self.placed_at = now

    def _again(self, id, name, order):
        """I4: the same request leaves again only when the first certainly was not carried out. I3: what the venue has filled, as amended, is not filled
        up again."""
        if id in self.first_sent:
            if id in self.flying: self.broke("I4", f"{id} is sent again while the first request is still under way")
            elif self.accepted[id]: self.broke("I4", f"{id} is sent again although the venue has it")
        if not name[1] or not self.plain(name[0]): return
        for k in range(name[1]):
            s = self.day.account.find(self.ids.make(name[0], k), order.symbol)
            if s is not None and s.state == FILLED and self.amended_at.get(name[0], 0) < s.ts:
                self.broke("I3", f"{id} asks for {order.lots} lots more, and the venue has filled all {s.lots} lots that wish {name[0]} came to")

    def worst(self, symbol, but="", proc=None, d=None):
        "(most lots long, most lots short) that may come out of what the venue has and what is on its way to it."
        day = self.day
        up = down = day.position(symbol) - (self.exits_untold(proc, symbol, d) if proc else 0)
        up = down = up + sum(f.side * f.lots for f in self.external[symbol])  # what others hold counts, and offsets
        for s in day.account.open_orders(symbol):
            if self.parse(s.id) is None or day.reduces(s.id): continue
            if s.side == BUY: up += s.lots - s.filled
            else: down -= s.lots - s.filled
        for id, (_, o) in self.flying.items():
            if o.symbol != symbol or o.reduce_only or id == but: continue
            if o.side == BUY: up += o.lots
            else: down -= o.lots
        return up, down

    def exits_untold(self, proc, symbol, d):
        """Lots of exits that have just traded, and of which the process could not know when it decided: to it the position that they close was still there.
        What leaves more than a second after its decision has no such excuse."""
        n, known, row = 0, proc.manager.known, self.rows[symbol]
        late = self.day.world.now - (int(d["ts"]) - proc.skew) > S + abs(proc.skew)
        for f in reversed(self.day.account._fills[-40:]):
            if f.symbol != symbol or not self.parse(f.id) or not self.day.reduces(f.id): continue
            key = row, id_number(f.trade_id)
            if key not in known or (not late and self.told.get(key, 0) > int(d["seq"])): n += f.side * f.lots
        return n

    def _limits(self, proc, order, d):
        "I5, from the venue's own books: what is there, what is open, what is under way, and this."
        day, ins, r = self.day, self.day.exchange.instruments[order.symbol], self.day.settings.risk
        up, down = self.worst(order.symbol, order.id, proc, d)
        up, down = (up + order.lots, down) if order.side == BUY else (up, down - order.lots)
        px = min(float(d["arrival_px"]), day.exchange.last(order.symbol))
        worst, equity = max(abs(up), abs(down)) * float(ins.lot) * px, day.equity()
        own = max(up, 0) if order.side == BUY else max(-down, 0)
        if own * float(ins.lot) * px > r.max_position_frac * equity * 1.02 + 10 and own > 0 and not day.outside_lately():
            self.broke("I5", f"{order.id}: {order.symbol} may come to {own * float(ins.lot) * px:.0f} of {equity:.0f}, allowed {r.max_position_frac}")
        if order.lots * float(ins.lot) * px > r.max_order_frac * equity * 1.02 + 10: self.broke("I5", f"{order.id}: order of {order.lots} lots too large")
        n = sum(1 for s in day.account.open_orders(order.symbol) if self.parse(s.id) and not day.reduces(s.id))
        n += sum(1 for _, o in self.flying.values() if o.symbol == order.symbol and not o.reduce_only and not day.reduces(o.id))
        if n > r.max_open_orders: self.broke("I5", f"{n} orders that add risk are open or under way in {order.symbol}, allowed {r.max_open_orders}")
        assert worst >= 0

    def _data(self, proc, order, d):
        "I6: a price that was printed, and not long ago."
        day, now = self.day, self.day.world.now
        heard = self.heard.get(order.symbol, 0)
        age = int(d["ts"]) - (heard + proc.skew)
        stale = day.settings.risk.stale_after_s * S
        if age > stale + 15 * S + abs(proc.skew): self.broke("I6", f"{order.id} on a market of {age / S:.0f} s ago")
        if not any(abs(px - d["arrival_px"]) < 1e-9 * px for ts, px in reversed(self.prices[order.symbol])):
            self.broke("I6", f"{order.id} decided at {float(d['arrival_px'])}, which {order.symbol} has not printed lately")
        assert now

    def printed(self, symbol, ts, px):
        q = self.prices[symbol]
        q.append((ts, px))
        while q and q[0][0] < ts - 10 * MINUTE: q.popleft()

    # requests arrive
    def arrived(self, proc, order):
        self.flying.pop(order.id, None)
    def acted(self, proc, kind, what, out):
        if kind == "amend" and getattr(out, "order", None) is not None and (name := self.parse(what[0] or "")): self.last_lots[name[0]] = out.order.lots
        if kind == "cancel" and getattr(out, "what", "") == TAKEN and out.order is not None and out.order.filled: self.day.count("OR-8")
        if getattr(out, "what", "") != TAKEN: return
        if kind == "amend" and (name := self.parse(what[0])) and not name[1] and self.plain(name[0]) and out.order is not None and out.order.lots:
            wished = self.amends[name[0]] | {int(self.intents[name[0]][0]["qty"]), 0}
            if out.order.lots not in wished: self.broke("I3", f"{what[0]} is amended to {out.order.lots} lots; wished were {sorted(wished)}")
        if kind != "place": return
        self.accepted[what[0]] += 1
        self.taken_at[what[0]] = self.day.world.now
        if self.accepted[what[0]] > 1: self.broke("I4", f"{what[0]} was accepted {self.accepted[what[0]]} times: sent again without proof")
        self.trades()
    def lost(self, id): self.flying.pop(id, None)

    def stopped(self, at):
        "RK-4: some time after the stop button nothing that adds risk is left at the venue."
        day = self.day
        if day.halted_at != at or day.trader is None or not day.trader.alive: return
        keyless = day.world.now if day.faults.revoked else day.key_back_at
        till = max(day.off_until, day.trader.patient_until, day.faults._banned_until, keyless) + 25 * S  # no cancel gets through before (RK-5, OR-17, AC-7)
        if (right := day.trader.lease) is not None and not right.ok(): till = day.world.now + 25 * S  # cancels wait for it
        if day.world.now < till: return day.world.at(till, self.stopped, at)
        left = [s.id for s in day.account.open_orders() if self.parse(s.id) and not day.reduces(s.id)]
        if left: self.broke("I10", f"{len(left)} orders are open 25 s after the stop button: {left[:3]}")

    def trades(self):
        "I3, after whatever the venue has done: no wish has more than it asked for."
        fills = self.day.account._fills
        for f in fills[self.seen_trades:]:
            name = self.parse(f.id)
            if name is None:
                self.external[f.symbol].append(f)
                continue
            self.done[name[0]] += f.lots
            if self.done[name[0]] > self.allowed(name[0]):
                self.broke("I3", f"wish {name[0]} asked for {self.allowed(name[0])} lots and has {self.done[name[0]]}")
            self.held[f.symbol] += f.side * f.lots
            for n in self.whole:
                if self.intents[n][0]["row"] == self.rows[f.symbol]: self.whole[n] = max(self.whole[n], self.done[n] + abs(self.held[f.symbol]))
        self.seen_trades = len(fills)

    def overdue(self, proc):
        "I11: what the venue has ended is known a minute later, and what was to be cancelled is gone."
        day, now = self.day, self.day.world.now
        for o in proc.session.world.k[0]["ords"]:
            n = int(o["id"])
            if o["state"] <= 0: continue
            if o["cancelling"] and now - self.cancels.get(n, now) > MINUTE:
                self.broke("I11", f"order {n} was to be cancelled {(now - self.cancels[n]) / S:.0f} s ago, and that is not settled")
            if not self.plain(n): continue
            s = day.account.find(self.ids.make(n), day.listed[int(o["row"])].symbol)
            if s is not None and s.state in OVER and now - s.ts > MINUTE and not any((self.parse(x.id) or (0,))[0] == n for x in day.account.open_orders()):
                self.broke("I11", f"order {n} was ended by the venue {(now - s.ts) / S:.0f} s ago, and we have it open")

    # quiet
    def quiet(self, proc, where):
        "I1 and I2."
        day, s = self.day, proc.session
        if s is None or proc.manager is None: return
        world, acc = s.world, day.account
        k, rows, bal = world.k[0], world.rows, acc.balances()
        assets = Counter()
        for n, (_, asset) in enumerate(s.wallets): assets[asset] += Decimal(int(k["wal"]["balance"][n])) * Decimal(str(s_unit(s, n)))
        apart = {a: Decimal(x) for a, x in getattr(proc.manager, "apart_cash", {}).items() if isinstance(a, str)}
        for a, x in apart.items():
            if x and not day.outside: self.broke("I1", f"{where}: {x} {a} are said to be somebody else's; nobody else has touched the account")
            assets[a] += x
        for a, x in getattr(proc.manager, "side", {}).items(): assets[a] += x
        part = {}  # what others have of a coin is counted in whole lots, for less rather than for more; their fees in it make parts of one
        for n, i in enumerate(s.instruments):
            lots, ext = int(rows["pos"]["lots"][n]), int(rows["pos"]["external"][n])
            if ext and i.market == "spot": part[i.base] = Decimal(i.lot)
            if i.market == "spot": assets[i.base] += Decimal(lots + ext) * Decimal(i.lot)
            elif (there := next((h.lots for h in acc.positions() if h.symbol == i.symbol), 0)) != lots + ext:
                self.broke("I1", f"{where}: position {i.symbol} is {lots} and {ext} of others, the venue has {there}")
        for a in sorted({*assets, *bal}):
            there = bal[a].total if a in bal else Decimal(0)
            if a in assets and assets[a] != there and not 0 < there - assets[a] < part.get(a, 0):
                self.broke("I1", f"{where}: {a} is {assets[a]}, the venue has {there} (differs by {assets[a] - there})")
        paid = sum((p.amount for p in acc._payments if p.what == "funding"), Decimal(0))
        got = sum(Decimal(int(k["wal"]["funding"][n])) * Decimal(s_unit(s, n)) for n in range(len(s.wallets)))
        if paid != got: self.broke("I1", f"{where}: funding booked {got}, the venue paid {paid}")
        ours, there = {}, {}
        for o in k["ords"]:
            if o["state"] > 0:
                ours[int(o["id"])] = (int(o["qty"] - o["filled"]), STATE_NAMES[int(o["state"])], bool(o["parent"] or o["group"] or o["reduce_only"]))
        for x in acc.open_orders():
            if (name := self.parse(x.id)) is not None: there[name[0]] = there.get(name[0], 0) + x.lots - x.filled
        for n in sorted({*ours, *there}):
            a, b = ours.get(n), there.get(n, 0)
            if a is None: self.broke("I1", f"{where}: order {n} is open at the venue and not in our books")
            elif a[2] and b <= max(a[0], self.whole.get(n, 0), self.asked_whole[n]): continue  # sized by what there is to protect: less may lie there
            elif a[0] != b: self.broke("I1", f"{where}: order {n} ({a[1]}) has {a[0]} lots left, at the venue {b}")
        self.booked(where)

    def booked(self, where):
        "I2, from the journal."
        day = self.day
        mine = [f for f in day.account._fills if self.parse(f.id)]
        unit = {i.symbol: (Decimal(i.cash_unit), i.settle) for i in day.listed}
        fee = lambda f: int((f.fee / unit[f.symbol][0]).to_integral_value()) if f.fee_asset == unit[f.symbol][1] else 0
        want = Counter((f.symbol, id_number(f.trade_id), f.lots, f.px, fee(f)) for f in mine)
        sc = scan(day.home/"journal"/"journal.bin", verify=False)
        got, ids = Counter(), {k[1] for k in want}  # one that came after the end of its order is booked without it
        for i in sc.of(OUT):
            data = sc.payload(i)
            if not struct.unpack_from("<6I", data)[2]: continue  # no fills in it
            for f in unpack_out(data)["fil"]:
                key = (day.exchange.listed[f["row"]].symbol, int(f["trade_id"]), int(f["qty"]), int(f["px"]), int(f["fee"]))
                if f["order"] or key[1] in ids: got[key] += 1
        for key, n in (got - want).items(): self.broke("I2", f"{where}: fill {key} is booked {n} times too often")
        for key, n in (want - got).items(): self.broke("I2", f"{where}: fill {key} of the venue is not booked ({n})")

    def replayed(self):
        "I7: the journal through a cold session gives the same decisions and the same state."
        day = self.day
        path = day.home/"journal"/"journal.bin"
        if not path.exists(): return ""
        sc = scan(path, day.run, day.kitdb)
        cold = day.new_session(day.listed)
        walk = Walk(cold, sc, None).load()
        walk.run()
        made, noted = walk.outputs(walk.made), walk.outputs(walk.noted)
        for f in made:
            n = len(noted[f])
            if made[f][:n].tobytes() != noted[f].tobytes() or len(made[f]) != n:
                self.broke("I7", f"replay gives other {f}: {len(made[f])} rows, journalled {n}")
        return cold.hash

def s_unit(s, n):
    "Unit of wallet `n` as text."
    venue, asset = s.wallets[n]
    return next((i.cash_unit for i in s.instruments if i.venue == venue and i.settle == asset), "0.00000001")

assert SELL and MARKET and CANCELED and EXPIRED and REJECT and FILL
