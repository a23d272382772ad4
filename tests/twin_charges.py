"""What a venue does to an account by itself: marks and margin, liquidation, funding, interest, swaps, transfers."""
from fractions import Fraction as F

from twin_money import BUY, DAY, PAID, SELL, near

class Charges:
    "The part of a venue that needs no order."
    # margin
    def mark_event(self, row, ts, px):
        self.do_until(ts)
        seen, self.tape_mark[row] = self.seen.get(row), px
        self.marked(row, ts, px)
        self.seen[row] = seen
    def marked(self, row, ts, px, check=True):
        "The row's mark moves; positions that it no longer carries are closed."
        self.seen[row] = px
        if row in self.tape_mark: px = self.tape_mark[row]
        ticks = self.ins[row].near(px)
        self.books.marks[row] = ticks
        if check: self.carried(row, ts)
    def carried(self, row, ts):
        "Does the margin still carry the row's position?"
        i, b = self.ins[row], self.books
        if i.kind == PAID or b.marks[row] is None: return
        if i.isolated:
            if b.pos[row].lots and b.im(row) + b.upnl(row) <= b.mm(row): self.liquidate([row], ts, i.settle, True)
            return
        have, need = b.margin(i.settle)
        if self.margin_call and need and need > self.margin_call * have:
            if i.settle not in self.called: self.answer("MARGIN_CALL", ts, row=row, px=need / max(have, 1), qty=i.settle)
            self.called.add(i.settle)
        else: self.called.discard(i.settle)
        if need and have <= need: self.liquidate(b.on_margin(i.settle, 0), ts, i.settle, False)
    def liquidate(self, rows, ts, wallet, isolated):
        b = self.books
        for o in sorted((o for o in self.live if o.row in rows), key=lambda o: not o.parent):  # children first
            self.end(o, "EXPIRED", ts, "liquidation", cascade=False)
        while held := [r for r in rows if b.pos[r].lots]:
            have, need = b.margin(wallet)
            if not isolated and have > need: break
            worst = min(held, key=lambda r: (b.upnl(r), r))
            risked, before = b.im(worst), b.wallets[wallet]
            self.close_out(worst, ts)
            if isolated and before - b.wallets[wallet] > risked: self.money("INSURANCE", ts, wallet, before - b.wallets[wallet] - risked, worst)
        if not isolated and not held and b.free(wallet) < 0: self.money("INSURANCE", ts, wallet, -b.free(wallet), rows[0])
    def close_out(self, row, ts):
        "Close a position at the market."
        i, p, book, pieces = self.ins[row], self.books.pos[row], self.book[row], []
        side, left, px = (SELL if p.lots > 0 else BUY), abs(p.lots), self.books.marks[row]
        for level in book.levels(-side) if i.mode != "trades" else []:
            lots = min(left, book.avail(-side, level))
            if lots <= 0: continue
            book.take(-side, level, lots)
            px, left = level, left - lots
            pieces.append((level, lots))
        if left and i.mode != "trades": pieces.append((self.taker(row, side, px * i.tick, left, side), left))
        elif left: pieces.append((self.taker(row, side, px * i.tick + self.asked(row, side, self.bars(row)), left, 0, self.bars(row, side)), left))
        for ticks, lots in pieces:
            n, _ = self.books.fill(row, side, lots, ticks)
            fee = near(F(n * i.liq_e8, 10**8))
            p.fees += fee
            due = self.money("LIQUIDATION_FEE", ts, i.settle, -fee, row)
            self.answer("FILL", ts, None, row, side, ticks, lots, due=due)

    # money by the clock
    def funding_event(self, row, ts, rate, px):
        self.do_until(ts)
        self.pay_funding(row, ts, near(rate * 10**12), self.ins[row].near(px) if px else None)
    def scheduled_funding(self, ts, row): self.pay_funding(row, ts, self.ins[row].funding_e12, None)
    def pay_funding(self, row, ts, rate_e12, ticks):
        if ticks is None and self.books.marks[row] is None: return
        amount = self.books.funding(row, ticks, rate_e12)
        self.books.pos[row].funding += amount
        self.money("FUNDING", ts, self.ins[row].settle, amount, row)
        self.carried(row, ts)
    def interest(self, ts, _):
        for w in self.wallets:
            row = next((r for r in self.rows if self.ins[r].settle == w), None)
            owed = max(-self.books.wallets[w], 0)
            if row is not None: self.money("INTEREST", ts, w, -near(F(owed * self.ins[row].borrow_e12, 24 * 10**12)), row)
        for r in self.rows:
            if self.books.marks[r] is not None: self.money("INTEREST", ts, self.ins[r].settle, self.books.borrowed(r), r)
        for r in self.rows: self.carried(r, ts)
    def rollover(self, ts, row):
        weekday = (ts // DAY + 3) % 7  # 1970-01-01 was a Thursday
        if weekday < 5: self.money("SWAP", ts, self.ins[row].settle, self.books.swap(row, weekday), row)
        self.carried(row, ts)

    # between venues
    def leaves(self, ts, id_, wallet, to_venue, to_wallet, amount, fee, delay):
        if amount > self.books.available(wallet): return self.answer("REJECT", ts, self.stub(id_, self.rows[0]), ref="insufficient")
        self.money("TRANSFER_OUT", ts, wallet, -amount, self.rows[0])
        self.w.venues[to_venue].act(ts + delay, self.w.venues[to_venue].comes, to_wallet, amount, fee)
    def comes(self, ts, wallet, amount, fee):
        self.money("TRANSFER_IN", ts, wallet, amount, self.rows[0])
        self.money("TRANSFER_FEE", ts, wallet, -fee, self.rows[0])
    def lots_leave(self, ts, id_, row, to_venue, to_row, lots, fee, delay):
        p = self.books.pos[row]
        if lots > p.lots: return self.answer("REJECT", ts, self.stub(id_, row), ref="insufficient")
        paid = near(F(p.cost * lots, p.lots))
        p.lots, p.cost = p.lots - lots, p.cost - paid
        self.answer("MOVED", ts, None, row, qty=-lots, ref=to_row)
        self.w.venues[to_venue].act(ts + delay, self.w.venues[to_venue].lots_come, row, to_row, lots - fee, paid)
    def lots_come(self, ts, from_row, row, lots, paid):
        p = self.books.pos[row]
        p.lots, p.cost = p.lots + lots, p.cost + paid
        self.answer("MOVED", ts, None, row, qty=lots, ref=from_row)
