"The rule of `tick_rule.py` in nautilus_trader. `peers.py` starts this in an environment of its own and says what differs."
import json, sys, time
from decimal import Decimal

import numpy as np
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.common.config import LoggingConfig
from nautilus_trader.config import RiskEngineConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import TradeTick
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide, OrderType, TrailingOffsetType, TriggerType
from nautilus_trader.model.identifiers import Venue
from nautilus_trader.model.objects import Money
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy

BTC = TestInstrumentProvider.btcusdt_binance()

class Rule(Strategy):
    prev, run, orders, flat = 0., 0, 0, True
    def on_start(self): self.subscribe_trade_ticks(BTC.id)
    def on_trade_tick(self, tick):
        px = tick.price.as_double()
        if px > self.prev: self.run = self.run + 1 if self.run > 0 else 1
        elif px < self.prev: self.run = self.run - 1 if self.run < 0 else -1
        self.prev = px
        if self.flat and self.run >= 6:
            self.flat = False; self.orders += 1
            cash = self.portfolio.account(BTC.id.venue).balance_total(USDT).as_double()
            self.submit_order(self.order_factory.market(BTC.id, OrderSide.BUY, BTC.make_qty(cash * .2 / px)))
    def on_order_filled(self, event):
        o = self.cache.order(event.client_order_id)
        if not o.is_closed: return
        if o.order_type == OrderType.MARKET:
            self.submit_order(self.order_factory.trailing_stop_market(BTC.id, OrderSide.SELL, o.filled_qty, trailing_offset=Decimal(50),
                trailing_offset_type=TrailingOffsetType.BASIS_POINTS, trigger_type=TriggerType.LAST_PRICE))
        else: self.flat = True; self.orders += 1
    def on_order_rejected(self, event): raise RuntimeError(event)
    def on_order_denied(self, event): raise RuntimeError(event)

def run(t):
    e = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), risk_engine=RiskEngineConfig(bypass=True), run_analysis=False))
    e.add_venue(Venue("BINANCE"), OmsType.NETTING, AccountType.CASH, [Money(100_000, USDT)], latency_model=LatencyModel(50_000_000), trade_execution=True)
    e.add_instrument(BTC)
    ts = t["ts"].astype("u8")
    e.add_data(TradeTick.from_raw_arrays_to_list(BTC.id, BTC.price_precision, BTC.size_precision, t["px"].copy(), np.maximum(t["qty"].round(6), 1e-6),
        np.where(t["side"] > 0, 1, 2).astype("u1"), [str(i) for i in range(len(t))], ts, ts + np.uint64(20_000_000)))
    s = Rule()
    e.add_strategy(s)
    clock = time.process_time()
    e.run()
    clock = time.process_time() - clock
    a = e.portfolio.account(BTC.id.venue)
    btc = a.balance_total(BTC.base_currency)
    out = dict(events=len(t), seconds=clock, orders=s.orders, equity=a.balance_total(USDT).as_double() + (btc.as_double() if btc else 0.) * float(t["px"][-1]))
    e.dispose()
    return out

t = np.load(sys.argv[1], mmap_mode="r")[:int(sys.argv[2])]
run(t[:1000])
print(json.dumps(min((run(t) for _ in range(3)), key=lambda r: r["seconds"])))
