"The order manager that everybody writes first: it believes every answer. The checker has to find it out."
import numpy as np

from algo_kit.adapters.protocol import TAKEN, Fill, Order, Seen, id_number
from algo_kit.core.records import (ACK, AMEND, AMEND_REJECT, AMENDED, CANCEL, CANCEL_REJECT, CANCELED, CANCELED_, CASH, EXPIRED, EXPIRED_, FEE, FILL, PLACE,
                                   REJECT, V, event_dt)

class Naive:
    "`Manager`, without any of its care."
    def __init__(self, venue, session, ids, cfg, tell, note, may_place, log=None, now_ns=None):
        self.venue, self.s, self.ids, self.cfg, self._tell, self.note, self.may_place, self.now = venue, session, ids, cfg, tell, note, may_place, now_ns
        self.unknown, self.in_flight, self.seen = 0, 0, set()
    def restore(self, decisions, answers): pass
    async def start(self): pass
    async def close(self): pass
    async def settle(self, timeout_s): pass
    async def reconcile(self, why): return []
    async def cancel_everything(self): await self.venue.cancel_all()
    def tell(self, kind, row, order, ref=0, px=0., qty=0., side=0, flags=0):
        e = np.zeros(1, event_dt)
        now = self.now()
        e[0] = (now, now, 0, px, qty, ref, order, row, kind, side, flags)
        self._tell(e)
    def take(self, dec):
        import asyncio
        for d in dec:
            if d["gate"] == 0: asyncio.get_running_loop().create_task(self.go(d.copy()))
    async def go(self, d):
        i, o = self.s.instruments[d["row"]], int(d["order"])
        id = self.ids.make(o)
        if d["wish"] == PLACE:
            if self.may_place(): return self.tell(REJECT, int(d["row"]), o, V["halted"])
            if d["parent"]: return self.tell(REJECT, int(d["row"]), o, V["parent"])
            out = await self.venue.submit(Order(id, i.symbol, int(d["side"]), int(d["type"]), int(d["qty"]), int(d["px"]), int(d["stop"]), int(d["trail_ppm"]),
                                                int(d["tif"]), bool(d["post_only"]), bool(d["reduce_only"])))
            self.tell(ACK if out.what == TAKEN else REJECT, int(d["row"]), o, 0 if out.what == TAKEN else V.get(out.reason, V["halted"]))
        elif d["wish"] == CANCEL:
            out = await self.venue.cancel(id, i.symbol)
            if out.what != TAKEN: self.tell(CANCEL_REJECT, int(d["row"]), o, V["unknown_order"])
        elif d["wish"] == AMEND:
            out = await self.venue.amend(id, i.symbol, int(d["qty"]), int(d["px"]))
            if out.what == TAKEN: self.tell(AMENDED, int(d["row"]), o, 0, int(d["px"]) * float(i.tick), float(d["qty"]))
            else: self.tell(AMEND_REJECT, int(d["row"]), o)
    def report(self, x):
        name = self.ids.parse(getattr(x, "id", ""))
        if name is None: return
        row = next(n for n, i in enumerate(self.s.instruments) if i.symbol == x.symbol)
        if isinstance(x, Fill):
            if (x.symbol, x.trade_id) in self.seen: return
            self.seen.add((x.symbol, x.trade_id))
            from decimal import Decimal
            unit = Decimal(self.s.instruments[row].cash_unit)
            self.tell(CASH, row, name[0], FEE, -float(x.fee / unit), 0.)
            self.tell(FILL, row, name[0], id_number(x.trade_id), x.px * float(self.s.instruments[row].tick), float(x.lots), x.side, int(x.maker))
        elif isinstance(x, Seen) and x.state in (CANCELED_, EXPIRED_): self.tell(CANCELED if x.state == CANCELED_ else EXPIRED, row, name[0])
