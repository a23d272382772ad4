"""The venue's rules, one small market each, answers worked by hand: data for the twin and for the engine alike.

Ticks, lots and units are 1 unless said, times are ms, orders number themselves 1, 2, 3. An expected answer is (ms at the venue, kind, order, what).
FILL: lots signed by side, price, T(aker) or M(aker). CASH: code, wallet, amount. Refusals: the reason.
AMENDED: price, total. MOVED: row, lots. ACKs are left out."""
BUY, SELL = 1, -1
MARKET, LIMIT, STOP, TRAIL, STOP_LIMIT, TAKE, TAKE_LIMIT = range(1, 8)
GTC, IOC, FOK, GTD = range(4)
PAID, LINEAR, INVERSE = range(3)
S, H, D = 1000, 3_600_000, 86_400_000  # ms
ALL = []

def scenario(name, steps, expect, ins=None, venue=None, wallets=(10**6,), end=None, acks=False, venues=None):
    rows = [{}] if ins is None else ins if isinstance(ins, list) else [ins]
    ALL.append(dict(name=name, steps=steps, expect=expect, ins=rows, venues=venues or [venue or {}], wallets=list(wallets), end=end or {}, acks=acks))

def trade(ms, px, qty=1, side=BUY, row=0): return ("trade", ms, row, px, qty, side)
def bar(ms, o, h, l, c, volume=10, row=0): return ("bar", ms, row, o, h, l, c, volume)
def bbo(ms, bid, bid_qty, ask, ask_qty, row=0): return ("message", ms, row, [(BUY, bid, bid_qty), (SELL, ask, ask_qty)], False)
def depth(ms, *levels, clear=False, row=0): return ("message", ms, row, list(levels), clear)
def book(ms, bids, asks, row=0): return depth(ms, *[(BUY, *x) for x in bids], *[(SELL, *x) for x in asks], clear=True, row=row)
def mark(ms, px, row=0): return ("mark", ms, row, px)
def funding(ms, rate, px=0, row=0): return ("funding", ms, row, rate, px)
def order(ms, side, type, qty, row=0, **k): return ("place", ms, row, dict(side=side, type=type, qty=qty) | k)
def buy(ms, qty, type=MARKET, **k): return order(ms, BUY, type, qty, **k)
def sell(ms, qty, type=MARKET, **k): return order(ms, SELL, type, qty, **k)
def cancel(ms, id, row=0): return ("cancel", ms, row, id)
def amend(ms, id, qty=0, px=0, row=0): return ("amend", ms, row, id, qty, px)
def command(ms, state): return ("command", ms, 0, state)
def transfer(ms, wallet, to_row, to_wallet, amount, fee=0, delay=0, row=0): return ("transfer", ms, row, wallet, to_row, to_wallet, amount, fee, delay)
def move(ms, row, to_row, lots, fee=0, delay=0): return ("move", ms, row, to_row, lots, fee, delay)
def constant(ms): return [ms * 10**6] * 65

# ---------------------------------------------------------------- only trades are known
LATE = dict(order=constant(50))
scenario("a market order takes the next trade", [trade(0, 100), buy(1, 15), trade(2, 101), trade(3, 90)], [(2, "FILL", 1, 15, 101, "T")],
         end=dict(wallets=[10**6 - 1515], lots=[15]))
scenario("or the last one", [trade(0, 100), buy(1, 15), trade(2, 101)], [(1, "FILL", 1, 15, 100, "T")], venue=dict(last_trade=True))
scenario("an order meets the trade it arrives with", [trade(0, 100), buy(1, 1), trade(50, 101), trade(51, 102)], [(51, "FILL", 1, 1, 102, "T")], venue=LATE)
scenario("slippage is rounded against us", [trade(0, 1000), buy(1, 1), trade(2, 1000), sell(3, 1), trade(4, 1000)],
         [(2, "FILL", 1, 1, 1001, "T"), (4, "FILL", 2, -1, 999, "T")], venue=dict(slip_ppm=200))  # 1000.2 and 999.8
scenario("the spread is paid when the tape was on the other side", [trade(0, 100), buy(1, 1), trade(2, 100, side=BUY), buy(3, 1), trade(4, 100, side=SELL)],
         [(2, "FILL", 1, 1, 100, "T"), (4, "FILL", 2, 1, 102, "T")], dict(spread_ticks=2))
scenario("impact grows with the order", [trade(0, 1000), buy(1, 4), trade(2, 1000), buy(3, 9), trade(4, 1000)],
         [(2, "FILL", 1, 4, 1002, "T"), (4, "FILL", 2, 9, 1003, "T")], venue=dict(impact=("sqrt", 1000.)))  # 1000 ppm * 2 = 2, * 3 = 3
scenario("impact by lots", [trade(0, 1000), buy(1, 4), trade(2, 1000)], [(2, "FILL", 1, 4, 1004, "T")], venue=dict(impact=("linear", 1000.)))
scenario("a fee is told before its fill", [trade(0, 1000), buy(1, 5), trade(2, 1000)],
         [(2, "CASH", 1, "FEE", 0, -10), (2, "FILL", 1, 5, 1000, "T")], dict(taker_e8=200_000), end=dict(wallets=[10**6 - 5010]))
scenario("a rebate is a negative fee", [trade(0, 1000), buy(1, 5, LIMIT, px=990), trade(2, 1000), trade(3, 989, 9)],
         [(3, "CASH", 1, "FEE", 0, 5), (3, "FILL", 1, 5, 990, "M")], dict(maker_e8=-100_000), end=dict(wallets=[10**6 - 4950 + 5]))  # 4.95
scenario("a crossing limit takes, never beyond its limit", [trade(0, 100), buy(1, 1, LIMIT, px=101), trade(2, 100)], [(2, "FILL", 1, 1, 101, "T")],
         venue=dict(slip_ppm=50_000))
scenario("at its own price it takes only when the tape was on its side",
         [trade(0, 100), buy(1, 1, LIMIT, px=100), trade(2, 100, side=SELL), buy(3, 1, LIMIT, px=100), trade(4, 100, side=BUY), trade(5, 99, 5)],
         [(4, "FILL", 2, 1, 100, "T"), (5, "FILL", 1, 1, 100, "M")])
scenario("touched is not traded through", [trade(0, 100), buy(1, 1, LIMIT, px=99), trade(2, 100), trade(3, 99, side=SELL), trade(4, 98)],
         [(4, "FILL", 1, 1, 99, "M")])
scenario("one trade's volume is shared, best price first, then time",
         [trade(0, 100), buy(1, 4, LIMIT, px=98), buy(1, 3, LIMIT, px=99), buy(1, 2, LIMIT, px=99), trade(2, 100), trade(3, 97, 6), trade(4, 97, 9)],
         [(3, "FILL", 2, 3, 99, "M"), (3, "FILL", 3, 2, 99, "M"), (3, "FILL", 1, 1, 98, "M"), (4, "FILL", 1, 3, 98, "M")])
QUEUED = dict(queue="risk_averse", queue_trades=2.)
scenario("a queue is estimated from the size of trades", [trade(0, 100, 4), buy(1, 5, LIMIT, px=99), trade(2, 100, 4), trade(3, 99, 6, SELL),
         trade(4, 99, 3, SELL),
# 8 before us; 6; 3: 1 for us; then all
         trade(5, 99, 3, BUY), trade(6, 99, 9, SELL)], [(4, "FILL", 1, 1, 99, "M"), (6, "FILL", 1, 4, 99, "M")], venue=QUEUED)
scenario("through is through, queue or not", [trade(0, 100, 4), buy(1, 5, LIMIT, px=99), trade(2, 100, 4), trade(3, 98, 6, SELL)],
         [(3, "FILL", 1, 5, 99, "M")], venue=QUEUED)
scenario("mean size moves by a 64th", [trade(0, 100, 64), trade(1, 100, 128), buy(2, 5, LIMIT, px=99), trade(3, 100, 65), trade(4, 99, 66, SELL)],
         [(4, "FILL", 1, 1, 99, "M")], venue=dict(queue="risk_averse", queue_trades=1.))  # 64, 65, 65: 65 before us, 66 trade

# stops and targets
HELD = [trade(0, 100), buy(1, 10), trade(2, 100)]
BOUGHT = (2, "FILL", 1, 10, 100, "T")
scenario("a stop sells at the trade that hit it", HELD + [sell(3, 10, STOP, stop=95, reduce_only=1), trade(4, 96), trade(5, 94)],
         [BOUGHT, (5, "FILL", 2, -10, 94, "T")], end=dict(lots=[0], wallets=[10**6 - 60]))
scenario("a target sells at the trade that reached it", HELD + [sell(3, 10, TAKE, stop=105, reduce_only=1), trade(4, 104), trade(5, 106)],
         [BOUGHT, (5, "FILL", 2, -10, 106, "T")])
scenario("a target of a buyer lies below", [trade(0, 100), buy(1, 3, TAKE, stop=95), trade(2, 96), trade(3, 94)], [(3, "FILL", 1, 3, 94, "T")])
scenario("a stop-limit looks at the trade after the one that hit it", HELD + [sell(3, 10, STOP_LIMIT, stop=95, px=94), trade(4, 95), trade(5, 94, side=SELL)],
         [BOUGHT, (5, "FILL", 2, -10, 94, "T")])
scenario("and rests when the market has gone past it", HELD + [sell(3, 10, STOP_LIMIT, stop=95, px=94), trade(4, 95), trade(5, 93), trade(6, 95, 4)],
         [BOUGHT, (6, "FILL", 2, -4, 94, "M")])
scenario("a take-limit", HELD + [sell(3, 10, TAKE_LIMIT, stop=105, px=104), trade(4, 105), trade(5, 105)], [BOUGHT, (5, "FILL", 2, -10, 105, "T")])
scenario("a trailing stop only tightens", HELD + [sell(3, 10, TRAIL, trail_ppm=100_000, reduce_only=1), trade(4, 100), trade(5, 110), trade(6, 100),
         trade(7, 99)],
         [BOUGHT, (7, "FILL", 2, -10, 99, "T")])  # stop at 90, 99, 99
scenario("bars: a stop at the stop, gapped through at the open", [bar(0, 100, 100, 100, 100), buy(1, 2), bar(2, 100, 101, 99, 100),
         sell(3, 1, STOP, stop=95), sell(3, 1, STOP, stop=90), bar(4, 97, 98, 94, 94), bar(5, 88, 89, 87, 88)],
         [(2, "FILL", 1, 2, 100, "T"), (4, "FILL", 2, -1, 95, "T"), (5, "FILL", 3, -1, 88, "T")])
scenario("bars: a stop comes before a target in the same bar", [bar(0, 100, 100, 100, 100), buy(1, 2), bar(2, 100, 101, 99, 100),
         sell(3, 2, TAKE, stop=105, group=9, reduce_only=1), sell(3, 2, STOP, stop=95, group=9, reduce_only=1, joined=1), bar(4, 100, 106, 94, 100)],
         [(2, "FILL", 1, 2, 100, "T"), (4, "EXPIRED", 2, "oco"), (4, "FILL", 3, -2, 95, "T")])
ALL[-1]["expect"][1:] = [(4, "FILL", 3, -2, 95, "T"), (4, "EXPIRED", 2, "oco")]  # the fill is told first
scenario("bars: a limit fills whole inside, and with the bar's volume at its close", [bar(0, 100, 100, 100, 100), buy(1, 50, LIMIT, px=98),
         buy(1, 50, LIMIT, px=96),
         bar(2, 100, 101, 97, 99), bar(3, 97, 97, 97, 95, 20)],
         [(2, "FILL", 1, 50, 98, "M"), (3, "FILL", 2, 20, 96, "M")])
scenario("bars are of bids: a buyer pays the spread, a seller does not", [bar(0, 100, 100, 100, 100), buy(1, 2), bar(2, 100, 101, 99, 100),
         sell(3, 2), bar(4, 103, 104, 102, 103)],
         [(2, "FILL", 1, 2, 102, "T"), (4, "FILL", 2, -2, 103, "T")], dict(spread_ticks=2))

# how long an order lives
scenario("immediate or cancel", [trade(0, 100), buy(1, 1, LIMIT, px=99, tif=IOC), buy(1, 1, LIMIT, px=101, tif=IOC), trade(2, 100)],
         [(2, "EXPIRED", 1, "ioc"), (2, "FILL", 2, 1, 100, "T")])
scenario("fill or kill", [trade(0, 100), buy(1, 1, LIMIT, px=99, tif=FOK), trade(2, 100)], [(2, "EXPIRED", 1, "fok")])
scenario("post only", [trade(0, 100), buy(1, 1, LIMIT, px=101, post_only=1), buy(1, 1, LIMIT, px=99, post_only=1), trade(2, 100), trade(3, 98)],
         [(2, "REJECT", 1, "post_only"), (3, "FILL", 2, 1, 99, "M")])
scenario("good till a time", [trade(0, 100), buy(1, 1, LIMIT, px=99, tif=GTD, good_till=10), trade(2, 100), trade(10, 98)], [(10, "EXPIRED", 1, "gtd")])
scenario("good till a time that was over on arrival", [trade(0, 100), buy(1, 1, LIMIT, px=99, tif=GTD, good_till=30), trade(60, 90)],
         [(51, "EXPIRED", 1, "gtd")], venue=LATE)
scenario("nothing to reduce", [trade(0, 100), sell(1, 5, reduce_only=1), trade(2, 100)], [(2, "EXPIRED", 1, "reduce_only")])
scenario("reduce-only never turns a position", HELD + [sell(3, 15, reduce_only=1), trade(4, 100)],
         [BOUGHT, (4, "FILL", 2, -10, 100, "T"), (4, "EXPIRED", 2, "reduce_only")], end=dict(lots=[0]))
scenario("whatever is held when it triggers", HELD + [sell(3, 10, STOP, stop=95, reduce_only=2), buy(3, 5), trade(4, 100), trade(5, 95)],
         [BOUGHT, (4, "FILL", 3, 5, 100, "T"), (5, "FILL", 2, -15, 95, "T"), (5, "EXPIRED", 2, "reduce_only")], end=dict(lots=[0]))

# cancels and amendments
scenario("a cancel", [trade(0, 100), buy(1, 5, LIMIT, px=99), trade(2, 100), trade(3, 98, 2), cancel(4, 1), trade(5, 90)],
         [(3, "FILL", 1, 2, 99, "M"), (4, "CANCELED", 1)])
scenario("a cancel that comes too late", [trade(0, 100), buy(1, 5, LIMIT, px=99), trade(60, 100), cancel(70, 1), trade(119, 98, 9)],
         [(119, "FILL", 1, 5, 99, "M"), (120, "CANCEL_REJECT", 1, "unknown_order")], venue=LATE)
scenario("a smaller order keeps its place", [trade(0, 100, 4), buy(1, 9, LIMIT, px=99), trade(2, 100, 4), trade(3, 99, 6, SELL), amend(4, 1, qty=5),
         trade(5, 99, 4, SELL)],
         [(4, "AMENDED", 1, 99, 5), (5, "FILL", 1, 2, 99, "M")], venue=QUEUED)  # 8 before it, 2, then 4 trade
scenario("a larger one goes to the end", [trade(0, 100, 4), buy(1, 5, LIMIT, px=99), trade(2, 100, 4), trade(3, 99, 6, SELL), amend(4, 1, qty=9),
         trade(5, 100, 4),
         trade(6, 99, 9, SELL)], [(4, "AMENDED", 1, 99, 9), (6, "FILL", 1, 1, 99, "M")], venue=QUEUED)  # 8 again; 9 trade
scenario("a new price goes to the end of another queue", [trade(0, 100), buy(1, 5, LIMIT, px=99), buy(1, 5, LIMIT, px=98), trade(2, 100),
         amend(3, 1, px=98), trade(4, 100),
         trade(5, 97, 6)], [(3, "AMENDED", 1, 98, 5), (5, "FILL", 2, 5, 98, "M"), (5, "FILL", 1, 1, 98, "M")])
scenario("a new price that crosses takes", [trade(0, 100), buy(1, 5, LIMIT, px=99), trade(2, 100), amend(3, 1, px=102), trade(4, 101)],
         [(3, "AMENDED", 1, 102, 5), (4, "FILL", 1, 5, 101, "T")])
scenario("less than is filled", [trade(0, 100), buy(1, 5, LIMIT, px=99), trade(2, 100), trade(3, 98, 3), amend(4, 1, qty=3), amend(5, 1, qty=4),
         trade(6, 98, 9)],
         [(3, "FILL", 1, 3, 99, "M"), (4, "AMEND_REJECT", 1, "too_late"), (5, "AMENDED", 1, 99, 4), (6, "FILL", 1, 1, 99, "M")])
scenario("an order that is gone", [trade(0, 100), amend(1, 7, qty=3), trade(2, 100)], [(1, "AMEND_REJECT", 7, "unknown_order")])
scenario("a stop moves", HELD + [sell(3, 10, STOP, stop=95, reduce_only=1), trade(4, 100), amend(5, 2, px=98), trade(6, 97)],
         [BOUGHT, (5, "AMENDED", 2, 98, 10), (6, "FILL", 2, -10, 97, "T")])

# what we take back
OPEN = [trade(0, 100), buy(1, 10), trade(2, 100), buy(3, 1, LIMIT, px=90), sell(3, 1, LIMIT, px=110, reduce_only=1),
        sell(3, 1, STOP, stop=80, reduce_only=1, protects=True)]
scenario("reducing: only what reduces stays", [*OPEN, command(4, "REDUCING"), trade(5, 79)], [BOUGHT, (4, "CANCELED", 2), (5, "FILL", 4, -1, 79, "T")])
scenario("halted: only what protects stays", [*OPEN, command(4, "HALTED"), trade(5, 79)],
         [BOUGHT, (4, "CANCELED", 2), (4, "CANCELED", 3), (5, "FILL", 4, -1, 79, "T")])
scenario("and active again", [*OPEN, command(4, "REDUCING"), command(5, "ACTIVE"), buy(6, 1, LIMIT, px=90), trade(7, 89, 9)],
         [BOUGHT, (4, "CANCELED", 2), (7, "FILL", 5, 1, 89, "T")])

# groups
scenario("one cancels the other", HELD + [sell(3, 10, LIMIT, px=105, group=5), sell(3, 10, STOP, stop=95, group=5, joined=1), trade(4, 100), trade(5, 106, 4),
         trade(6, 94)],
         [BOUGHT, (5, "FILL", 2, -4, 105, "M"), (6, "FILL", 3, -6, 94, "T"), (6, "EXPIRED", 3, "oco"), (6, "EXPIRED", 2, "oco")], end=dict(lots=[0]))
ALL[-1]["expect"][3:] = [(6, "EXPIRED", 2, "oco"), (6, "EXPIRED", 3, "oco")]  # the others first, then the one that filled: it was 10 once
BRACKET = [trade(0, 100), buy(1, 10, LIMIT, px=99), sell(1, 10, LIMIT, px=105, parent=1, joined=1, group=1, reduce_only=1),
           sell(1, 10, STOP, stop=95, parent=1, joined=1, group=1, reduce_only=1), trade(2, 100)]
scenario("a bracket sleeps until its entry fills", BRACKET + [trade(3, 110), trade(4, 98, 99), trade(5, 100), trade(6, 106, 99)],
         [(4, "FILL", 1, 10, 99, "M"), (6, "FILL", 2, -10, 105, "M"), (6, "EXPIRED", 3, "oco")])
scenario("and grows with it", BRACKET + [trade(3, 98, 4), trade(4, 94, 2)],
         [(3, "FILL", 1, 4, 99, "M"), (4, "FILL", 3, -4, 94, "T"), (4, "FILL", 1, 2, 99, "M")])  # the stop acts on a trade before resting orders do
scenario("and ends with it", BRACKET + [cancel(3, 1), trade(4, 90)], [(3, "CANCELED", 1), (3, "EXPIRED", 2, "parent"), (3, "EXPIRED", 3, "parent")])
scenario("an entry that is refused", [trade(0, 100), buy(1, 0), sell(1, 0, STOP, stop=95, parent=1, joined=1), trade(2, 90)],
         [(1, "REJECT", 1, "lot_size"), (1, "REJECT", 2, "lot_size")])

# what the venue refuses
scenario("lot size", [trade(0, 100), buy(1, 4), buy(1, 21), buy(1, 20), trade(2, 100)],
         [(1, "REJECT", 1, "lot_size"), (1, "REJECT", 2, "lot_size"), (2, "FILL", 3, 20, 100, "T")], dict(min_lots=5, max_lots=20))
scenario("notional", [trade(0, 100), buy(1, 4), buy(1, 21), buy(1, 4, LIMIT, px=125), trade(2, 100)],
         [(1, "REJECT", 1, "min_notional"), (1, "REJECT", 2, "max_notional"), (2, "FILL", 3, 4, 100, "T")], dict(min_notional=500, max_notional=2000))
scenario("price collar", [trade(0, 100), buy(1, 1, LIMIT, px=89), buy(1, 1, LIMIT, px=90), buy(1, 1, LIMIT, px=111), trade(2, 100)],
         [(1, "REJECT", 1, "price_collar"), (1, "REJECT", 3, "price_collar")], dict(collar_ppm=100_000))
scenario("too many orders", [trade(0, 100), buy(1, 1, LIMIT, px=90), buy(1, 1, LIMIT, px=90), buy(1, 1, LIMIT, px=90), cancel(2, 1),
         buy(3, 1, LIMIT, px=90), trade(4, 100)],
         [(1, "REJECT", 3, "max_orders"), (2, "CANCELED", 1)], dict(max_orders=2))
scenario("too many orders at once", [trade(0, 100), buy(1, 1, LIMIT, px=90), buy(2, 1, LIMIT, px=90), buy(3, 1, LIMIT, px=90),
         buy(10_001, 1, LIMIT, px=90), trade(10_002, 100)],
         [(3, "REJECT", 3, "rate_limit")], venue=dict(rate_limit=2))
scenario("not enough money", [trade(0, 100), buy(1, 10), buy(1, 9, LIMIT, px=110), buy(1, 10, LIMIT, px=99), trade(2, 100)],
         [(1, "REJECT", 1, "insufficient")], dict(taker_e8=10**6), wallets=(999,))  # 1000 + 10; 990 + 10 = 1000 > 999; 990 + 10 > 999
ALL[-1]["expect"] += [(1, "REJECT", 2, "insufficient"), (1, "REJECT", 3, "insufficient")]
scenario("money that does not last until the fill", [trade(0, 100), buy(1, 9), trade(2, 120), buy(3, 8), trade(4, 120)],
         [(2, "REJECT", 1, "insufficient"), (4, "FILL", 2, 8, 120, "T")], wallets=(1000,))
scenario("nothing to sell", HELD + [sell(3, 11), sell(3, 10), trade(4, 100)], [BOUGHT, (3, "REJECT", 2, "insufficient"),
         (4, "FILL", 3, -10, 100, "T")], dict(short_ok=0))
scenario("self-trade: the new one goes", [trade(0, 100), buy(1, 5, LIMIT, px=99), trade(2, 100), sell(3, 5, LIMIT, px=99), sell(3, 5, LIMIT, px=100),
         sell(3, 5), trade(4, 99)],
         [(3, "REJECT", 2, "self_trade"), (3, "REJECT", 4, "self_trade")], venue=dict(self_trade="expire_taker"))
scenario("self-trade: the old one goes", [trade(0, 100), buy(1, 5, LIMIT, px=99), buy(1, 5, LIMIT, px=98), trade(2, 100), sell(3, 5, LIMIT, px=99),
         trade(4, 100), cancel(5, 2)],
         [(3, "EXPIRED", 1, "self_trade"), (4, "FILL", 3, -5, 100, "T"), (5, "CANCELED", 2)], venue=dict(self_trade="expire_maker"))

# time
scenario("requests arrive in the order they left, answers too", [trade(0, 100), buy(30, 1), trade(100, 100), cancel(130, 1), trade(300, 100)],
         [(80, "ACK", 1), (100, "FILL", 1, 1, 100, "T"), (180, "CANCEL_REJECT", 1, "unknown_order")], venue=dict(order=constant(50),
         response=constant(30), feed=constant(20)), acks=True)

# ---------------------------------------------------------------- best bid and ask
TOP, TOPQ = dict(mode="bbo"), dict(queue="risk_averse")
scenario("bbo: what is shown, then the rest slipped", [bbo(0, 99, 10, 101, 4), buy(1, 10), bbo(2, 99, 10, 101, 4)],
         [(1, "FILL", 1, 4, 101, "T"), (1, "FILL", 1, 6, 103, "T")], TOP, venue=dict(slip_ppm=10_000))  # 102.01
scenario("bbo: what we took is not there twice", [bbo(0, 99, 10, 101, 4), buy(1, 3, LIMIT, px=101), buy(1, 3, LIMIT, px=101), bbo(2, 99, 10, 101, 5),
         bbo(3, 99, 10, 102, 5),
         bbo(4, 99, 10, 101, 9)],
         [(1, "FILL", 1, 3, 101, "T"), (1, "FILL", 2, 1, 101, "T"), (2, "FILL", 2, 1, 101, "M"), (4, "FILL", 2, 1, 101, "M")], TOP)  # taken 4 of 5; gone; 9 new
scenario("bbo: nobody on the other side", [bbo(0, 99, 10, 101, 0), buy(1, 1), buy(1, 1, LIMIT, px=99, tif=IOC), bbo(2, 99, 10, 101, 5)],
         [(1, "REJECT", 1, "no_liquidity"), (1, "EXPIRED", 2, "ioc")], TOP)
scenario("bbo: the queue at the best price", [bbo(0, 99, 10, 101, 4), buy(1, 5, LIMIT, px=99), trade(2, 99, 8, SELL), bbo(3, 99, 2, 101, 4),
         trade(4, 99, 4, SELL), trade(5, 99, 9, SELL)],
         [(4, "FILL", 1, 2, 99, "M"), (5, "FILL", 1, 3, 99, "M")], TOP, venue=TOPQ)
scenario("bbo: a price out of sight", [bbo(0, 99, 10, 101, 4), buy(1, 5, LIMIT, px=97), bbo(2, 97, 6, 101, 4), trade(3, 97, 8, SELL)],
         [(3, "FILL", 1, 2, 97, "M")], TOP, venue=TOPQ)
scenario("bbo: traded through", [bbo(0, 99, 10, 101, 4), buy(1, 50, LIMIT, px=98), trade(2, 97, 1, SELL)], [(2, "FILL", 1, 50, 98, "M")], TOP, venue=TOPQ)
scenario("bbo: stops of fx trigger on quotes", [bbo(0, 99, 10, 101, 90), buy(1, 5), sell(2, 5, STOP, stop=97, reduce_only=1), bbo(3, 98, 9, 99, 9),
         bbo(4, 97, 9, 99, 9)],
         [(1, "FILL", 1, 5, 101, "T"), (4, "FILL", 2, -5, 97, "T")], TOP | dict(quote_stop=1))

# ---------------------------------------------------------------- all levels
DEEP = dict(mode="depth")
L2 = book(0, [(99, 10), (98, 20)], [(101, 4), (102, 5), (104, 50)])
scenario("depth: a market order walks", [L2, buy(1, 12), depth(2, (BUY, 99, 9))],
         [(1, "FILL", 1, 4, 101, "T"), (1, "FILL", 1, 5, 102, "T"), (1, "FILL", 1, 3, 104, "T")], DEEP, end=dict(wallets=[10**6 - 404 - 510 - 312]))
scenario("depth: and ends with the book", [L2, buy(1, 60), depth(2, (BUY, 99, 9))],
         [(1, "FILL", 1, 4, 101, "T"), (1, "FILL", 1, 5, 102, "T"), (1, "FILL", 1, 50, 104, "T"), (1, "EXPIRED", 1, "no_liquidity")], DEEP)
scenario("depth: immediate or cancel within the limit", [L2, buy(1, 12, LIMIT, px=102, tif=IOC), depth(2, (BUY, 99, 9))],
         [(1, "FILL", 1, 4, 101, "T"), (1, "FILL", 1, 5, 102, "T"), (1, "EXPIRED", 1, "ioc")], DEEP)
scenario("depth: all or nothing", [L2, buy(1, 10, LIMIT, px=102, tif=FOK), buy(1, 9, LIMIT, px=102, tif=FOK), depth(2, (BUY, 99, 9))],
         [(1, "EXPIRED", 1, "fok"), (1, "FILL", 2, 4, 101, "T"), (1, "FILL", 2, 5, 102, "T")], DEEP)
scenario("depth: the rest rests, and the other side comes to it", [L2, buy(1, 7, LIMIT, px=101), depth(2, (SELL, 101, 6)), depth(3, (BUY, 99, 9))],
         [(1, "FILL", 1, 4, 101, "T"), (2, "FILL", 1, 2, 101, "M")], DEEP)  # 4 of the 6 were ours before
scenario("depth: risk averse", [L2, buy(1, 5, LIMIT, px=99), depth(2, (BUY, 99, 7)), depth(3, (BUY, 99, 30)), trade(4, 99, 9, SELL)],
         [(4, "FILL", 1, 2, 99, "M")], DEEP, venue=TOPQ)  # 10, 7, 7
# front 10, 6 join behind; 16 -> 12: back 6, p = 36 / 136, front 10 - (1 - p) * 4 = 7.06; a trade of 10: 2.94 for us
scenario("depth: power", [L2, buy(1, 5, LIMIT, px=99), depth(2, (BUY, 99, 16)), depth(3, (BUY, 99, 12)), trade(4, 99, 10, SELL)],
         [(4, "FILL", 1, 3, 99, "M")], DEEP, venue=dict(queue="power", queue_n=2.))
# the same with ln(1 + x): p = ln 7 / (ln 7 + ln 11) = 0.448, front 10 - 0.552 * 4 = 7.79; 2.21 for us
scenario("depth: log", [L2, buy(1, 5, LIMIT, px=99), depth(2, (BUY, 99, 16)), depth(3, (BUY, 99, 12)), trade(4, 99, 10, SELL)],
         [(4, "FILL", 1, 2, 99, "M")], DEEP, venue=dict(queue="log"))
scenario("depth: a trade is not a cancellation as well", [L2, buy(1, 5, LIMIT, px=99), trade(2, 99, 4, SELL), depth(3, (BUY, 99, 6)), trade(4, 99, 8, SELL)],
         [(4, "FILL", 1, 2, 99, "M")], DEEP, venue=dict(queue="power", queue_n=1.))  # 10, 6, the level says so too, then 8
scenario("depth: volume of a trade is shared by the touched", [L2, buy(1, 5, LIMIT, px=99), buy(1, 5, LIMIT, px=99), trade(2, 99, 13, SELL),
         trade(3, 99, 1, SELL)],
         [(2, "FILL", 1, 3, 99, "M"), (2, "FILL", 2, 3, 99, "M"), (3, "FILL", 1, 1, 99, "M")], DEEP, venue=TOPQ)
scenario("depth: a snapshot that repeats the book changes nothing", [L2, buy(1, 5, LIMIT, px=99), trade(2, 99, 4, SELL), L2[:1] + (2,) + L2[2:],
         trade(4, 99, 8, SELL)],
         [(4, "FILL", 1, 2, 99, "M")], DEEP, venue=TOPQ)
scenario("depth: nobody trades with a crossed book", [L2, depth(1, (BUY, 101, 3)), buy(2, 2), depth(3, (SELL, 101, 0)), depth(4, (BUY, 99, 9))],
         [(3, "FILL", 1, 2, 102, "T")], DEEP)
scenario("depth: post only", [L2, buy(1, 2, LIMIT, px=101, post_only=1), buy(1, 2, LIMIT, px=100, post_only=1), trade(2, 99, 1, SELL)],
         [(1, "REJECT", 1, "post_only"), (2, "FILL", 2, 2, 100, "M")], DEEP)
scenario("depth: a stop walks the book", [L2, buy(1, 4), sell(2, 4, STOP, stop=99, reduce_only=1), trade(3, 99, 1, SELL), depth(4, (BUY, 99, 9))],
         [(1, "FILL", 1, 4, 101, "T"), (3, "FILL", 2, -4, 99, "T")], DEEP)
scenario("depth: a stop-limit rests at once", [L2, buy(1, 4), sell(2, 4, STOP_LIMIT, stop=99, px=100), trade(3, 99, 1, SELL), trade(4, 101, 1, BUY)],
         [(1, "FILL", 1, 4, 101, "T"), (4, "FILL", 2, -4, 100, "M")], DEEP)
scenario("depth: a target that is there already takes", [L2, buy(1, 4, LIMIT, px=101), sell(1, 4, LIMIT, px=99, parent=1, joined=1, group=1, reduce_only=1),
         depth(2, (BUY, 99, 9))],
         [(1, "FILL", 1, 4, 101, "T"), (1, "FILL", 2, -4, 99, "T")], DEEP)

# ---------------------------------------------------------------- money
PERP = dict(kind=LINEAR, margin_e8=10**7, taker_e8=10**5)  # 10 times, 0.1 %
scenario("linear: profit only", [trade(0, 1000), buy(1, 10), trade(2, 1000), sell(3, 4), trade(4, 1100), sell(5, 12), trade(6, 900)],
         [(2, "CASH", 1, "FEE", 0, -10), (2, "FILL", 1, 10, 1000, "T"), (4, "CASH", 2, "FEE", 0, -4), (4, "FILL", 2, -4, 1100, "T"),
          (6, "CASH", 3, "FEE", 0, -11), (6, "FILL", 3, -12, 900, "T")],  # fees 10, 4.4, 10.8
         PERP, wallets=(5000,), end=dict(wallets=[5000 - 25 + 400 - 600], lots=[-6], cost=[-5400]))
# inverse: 1 lot = 100 USD = 100e8/px sat; 10 lots at 50,000: 2,000,000 sat; closed at 40,000: 2,500,000
COIN = dict(kind=INVERSE, num=10**10, den=1, margin_e8=10**7)
scenario("inverse: a fall costs a holder more coins than a rise brings", [trade(0, 50_000), buy(1, 10), trade(2, 50_000), sell(3, 10), trade(4, 40_000)],
         [(2, "FILL", 1, 10, 50_000, "T"), (4, "FILL", 2, -10, 40_000, "T")], COIN, end=dict(wallets=[10**6 - 500_000], cost=[0]))
scenario("margin: 10 times is what there is", [trade(0, 1000), buy(1, 10), trade(2, 1000), buy(3, 1), trade(4, 1000), sell(5, 20), trade(6, 1000)],
         [(2, "CASH", 1, "FEE", 0, -10), (2, "FILL", 1, 10, 1000, "T"), (3, "REJECT", 2, "insufficient"), (5, "REJECT", 3, "insufficient")],
         PERP, wallets=(1010,))
# sells 20: 10 of them open, need 1000 + 10; there is 1000 - 1000
TIERS = dict(tiers=((10_000, 10**6 * 5, 0), (100_000, 10**7, 500)))  # 5 % up to 10,000, then 10 % less 500
CROSS = dict(kind=LINEAR, margin_e8=10**7, liq_e8=10**6) | TIERS
# 10 lots at 1000, balance 1000: at 947 value 9470, mm 473.5 -> 474 (half away), upnl -530: 470 <= 474
scenario("cross margin: closed when the maintenance is not covered", [trade(0, 1000), buy(1, 10), trade(2, 1000), sell(2, 10, LIMIT, px=1100),
         trade(3, 948), trade(4, 947), trade(5, 947)],
         [(2, "FILL", 1, 10, 1000, "T"), (4, "EXPIRED", 2, "liquidation"), (4, "CASH", 0, "LIQUIDATION_FEE", 0, -95), (4, "FILL", 0, -10, 947, "T")],
         CROSS, wallets=(1000,), end=dict(wallets=[1000 - 530 - 95], lots=[0]))
scenario("cross margin: a gap below zero is the venue's loss", [trade(0, 1000), buy(1, 10), trade(2, 1000), trade(3, 880)],
         [(2, "FILL", 1, 10, 1000, "T"), (3, "CASH", 0, "LIQUIDATION_FEE", 0, -88), (3, "FILL", 0, -10, 880, "T"), (3, "CASH", 0, "INSURANCE", 0, 288)],
         CROSS, wallets=(1000,), end=dict(wallets=[0]))
# isolated: im 1000, at 947 1000 - 530 <= 473.5; the rest of the wallet stays. A gap to 880: loss 1200 + 88 beyond 1000
scenario("isolated margin: only what was put in", [trade(0, 1000), buy(1, 10), trade(2, 1000), trade(3, 947)],
         [(2, "FILL", 1, 10, 1000, "T"), (3, "CASH", 0, "LIQUIDATION_FEE", 0, -95), (3, "FILL", 0, -10, 947, "T")],
         CROSS | dict(isolated=1), wallets=(9000,), end=dict(wallets=[9000 - 530 - 95]))
scenario("isolated margin: a gap", [trade(0, 1000), buy(1, 10), trade(2, 1000), trade(3, 880)],
         [(2, "FILL", 1, 10, 1000, "T"), (3, "CASH", 0, "LIQUIDATION_FEE", 0, -88), (3, "FILL", 0, -10, 880, "T"), (3, "CASH", 0, "INSURANCE", 0, 288)],
         CROSS | dict(isolated=1), wallets=(9000,), end=dict(wallets=[8000]))
# 20 lots at 1000: 20,000 is in the second tier, 2000 - 500 = 1500; at 974: 19,480 -> 1448, balance 2000 - 520 = 1480; at 973: 1446, 1460; at 972: 1444 and 1440
scenario("tiers: a large position needs more", [trade(0, 1000), buy(1, 20), trade(2, 1000), trade(3, 973), trade(4, 972)],
         [(2, "FILL", 1, 20, 1000, "T"), (4, "CASH", 0, "LIQUIDATION_FEE", 0, -194), (4, "FILL", 0, -20, 972, "T")], CROSS, wallets=(2000,),
         end=dict(wallets=[2000 - 560 - 194]))
# two rows, one wallet: losses of 400 and 200; the worst goes first, then the rest is carried
scenario("the worst loss is closed first, until healthy", [trade(0, 1000), trade(0, 1000, row=1), buy(1, 10), buy(1, 10, row=1), trade(2, 1000),
         trade(2, 1000, row=1),
         trade(3, 980, row=1), trade(4, 940)],  # 2000 - 200 - 600 = 1200 > 490 + 470; lower:
         [(2, "FILL", 1, 10, 1000, "T"), (2, "FILL", 2, 10, 1000, "T")], [CROSS, CROSS], wallets=(2000,))
ALL[-1]["steps"].append(trade(5, 913))  # 2000 - 200 - 870 = 930 <= 490 + 457 (456.5 away from zero): row 0 goes, 2000 - 870 - 91 = 1039 - 200 > 490
ALL[-1]["expect"] += [(5, "CASH", 0, "LIQUIDATION_FEE", 0, -91), (5, "FILL", 0, -10, 913, "T")]
ALL[-1]["end"] = dict(lots=[0, 10], wallets=[2000 - 870 - 91])
scenario("a margin call comes once", [trade(0, 1000), buy(1, 10), trade(2, 1000), trade(3, 990), trade(4, 960), trade(5, 959), trade(6, 960)],
         [(2, "FILL", 1, 10, 1000, "T"), (4, "MARGIN_CALL", 0, 480 / 600)], CROSS, venue=dict(margin_call=.79), wallets=(1000,))  # 495/900, 480/600, 480/590
# 2000 - 1470 = 530; maintenance 8530 * .05 = 426.5 -> 427
scenario("and takes back what could add to the position", [trade(0, 1000), buy(1, 10), trade(2, 1000), buy(3, 1, LIMIT, px=800),
         sell(3, 1, LIMIT, px=1100), sell(3, 10, LIMIT, px=1100, reduce_only=1), trade(4, 855), trade(5, 853), trade(6, 855)],
         [(2, "FILL", 1, 10, 1000, "T"), (5, "MARGIN_CALL", 0, 427 / 530), (5, "CANCELED", 2), (5, "CANCELED", 3)],
         CROSS, venue=dict(margin_call=.79), wallets=(2000,))
scenario("the venue's mark decides, where there is one", [trade(0, 1000), mark(0, 1000), buy(1, 10), trade(2, 1000), trade(3, 900), mark(4, 947)],
         [(2, "FILL", 1, 10, 1000, "T"), (4, "CASH", 0, "LIQUIDATION_FEE", 0, -95), (4, "FILL", 0, -10, 947, "T")], CROSS, wallets=(1000,))
scenario("bars: the adverse extreme is what closes a position, after a stop has had its turn", [bar(0, 1000, 1000, 1000, 1000), buy(1, 10),
         bar(2, 1000, 1000, 1000, 1000),
         bar(3, 1000, 1010, 947, 1000)], [(2, "FILL", 1, 10, 1000, "T"), (3, "CASH", 0, "LIQUIDATION_FEE", 0, -95), (3, "FILL", 0, -10, 947, "T")],
         CROSS, wallets=(1000,))
scenario("funding is paid on what is held then", [trade(0, 1000), buy(1, 10), trade(2, 1000), funding(3, .0001), funding(4, -.0002, 2000),
         sell(5, 20), trade(6, 1000), funding(7, .0001)],
         [(2, "FILL", 1, 10, 1000, "T"), (3, "CASH", 0, "FUNDING", 0, -1), (4, "CASH", 0, "FUNDING", 0, 4), (6, "FILL", 2, -20, 1000, "T"),
         (7, "CASH", 0, "FUNDING", 0, 1)],
         dict(kind=LINEAR, margin_e8=10**7))
scenario("funding by schedule", [trade(S, 1000), buy(2 * S, 10), trade(3 * S, 1000), trade(8 * H + S, 1000), trade(16 * H, 1000)],
         [(3 * S, "FILL", 1, 10, 1000, "T"), (8 * H, "CASH", 0, "FUNDING", 0, -5), (16 * H, "CASH", 0, "FUNDING", 0, -5)],
         dict(kind=LINEAR, margin_e8=10**7, funding_ns=8 * 3600 * 10**9, funding_e12=5 * 10**8))
ALL[-1]["t0"] = 1_600_041_600 * 10**9
# a loss of 3000 on 2000; 1 % an hour on what is owed
scenario("interest on what is owed", [trade(S, 1000), buy(2 * S, 10), trade(3 * S, 1000), sell(4 * S, 10), trade(5 * S, 700), trade(H + S, 700),
         trade(2 * H + S, 700)],
         [(3 * S, "FILL", 1, 10, 1000, "T"), (5 * S, "FILL", 2, -10, 700, "T"), (H, "CASH", 0, "INTEREST", 0, -10), (2 * H, "CASH", 0, "INTEREST", 0, -10)],
         dict(kind=LINEAR, margin_e8=10**7, borrow_e12=24 * 10**10), wallets=(2000,), end=dict(wallets=[-1020]))
ALL[-1]["t0"] = 1_600_041_600 * 10**9
scenario("interest on a coin that was borrowed and sold", [trade(S, 1000), sell(2 * S, 10), trade(3 * S, 1000), trade(H - S, 1200), trade(H + S, 1000)],
         [(3 * S, "FILL", 1, -10, 1000, "T"), (H, "CASH", 0, "INTEREST", 0, -12)], dict(borrow_e12=24 * 10**9), wallets=(20_000,))
ALL[-1]["t0"] = 1_600_041_600 * 10**9
# swap: 1970-01-01 is a Thursday (3); rollover 21:00; Friday is triple here
scenario("swap at the rollover, three days at once", [trade(S, 1000), buy(2 * S, 10), trade(3 * S, 1000), trade(22 * H, 1000),
         trade(D + 22 * H, 1000), trade(2 * D + 22 * H, 1000)],
         [(3 * S, "FILL", 1, 10, 1000, "T"), (21 * H, "CASH", 0, "SWAP", 0, -25), (D + 21 * H, "CASH", 0, "SWAP", 0, -75)],
         dict(kind=LINEAR, margin_e8=10**6, swap_long_mt=-2500, swap_short_mt=1000, roll_ns=21 * 3600 * 10**9, triple_day=4))
ALL[-1]["t0"] = 0
scenario("a fee in a third asset", [trade(0, 1000), buy(1, 10), trade(2, 1000), buy(3, 20), trade(4, 1000)],
         [(2, "CASH", 1, "FEE", 1, -15), (2, "FILL", 1, 10, 1000, "T"), (4, "CASH", 2, "FEE", 0, -40), (4, "FILL", 2, 20, 1000, "T")],
# 20 less a quarter; then 30 of 5: the quote's
         dict(taker_e8=2 * 10**5, fee_wallet=1), venue=dict(fee_discount_e8=25 * 10**6, fee_mark=1), wallets=(10**6, 20))
# two venues
TWO = [dict(), dict(order=constant(5))]
PAIR = [dict(), dict(venue=1, settle=1)]
scenario("money on its way is nowhere else", [trade(0, 100), trade(0, 100, row=1), transfer(1, 0, 1, 1, 500, 3, 1000), trade(2, 100), trade(1001, 100, row=1)],
         [(1, "CASH", 0, "TRANSFER_OUT", 0, -500), (1001, "CASH", 0, "TRANSFER_IN", 1, 500), (1001, "CASH", 0, "TRANSFER_FEE", 1, -3)],
         PAIR, venues=TWO, wallets=(1000, 1000), end=dict(wallets=[500, 1497]))
scenario("lots on their way", [trade(0, 100), trade(0, 100, row=1), buy(1, 10), trade(2, 100), move(3, 0, 1, 6, 1, 1000), trade(4, 100), sell(5, 5),
         trade(6, 100),
         trade(1003, 100, row=1)],
         [(2, "FILL", 1, 10, 100, "T"), (3, "MOVED", 0, 0, -6), (5, "REJECT", 3, "insufficient"), (1003, "MOVED", 0, 1, 5)],
         [PAIR[0] | dict(short_ok=0), PAIR[1]],
         venues=TWO, wallets=(1000, 1000), end=dict(lots=[4, 5], cost=[400, 600]))
scenario("more than there is", [trade(0, 100), trade(0, 100, row=1), transfer(1, 0, 1, 1, 1001), trade(2, 100)], [(1, "REJECT", 1, "insufficient")],
         PAIR, venues=TWO, wallets=(1000, 1000))
