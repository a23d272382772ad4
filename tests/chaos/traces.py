"""I15, fault by fault: what each one must leave behind in the session in which it was active. A trace is a note of the journal, an event or a gate's
verdict in it, or what a process said when it ended."""
import re

from algo_kit.core.records import KIND_NAMES
from algo_kit.strategies.contract import ENGINE_GATES

TRACES = {
    "OR-1": "outcome unknown", "OR-2": "outcome unknown", "OR-3": "outcome unknown|refused", "OR-4": "refused: lot_size", "OR-6": "refused: insufficient",
    "OR-7": "refused: (post_only|reduce_only)", "OR-9": "event FILL", "OR-12": "event FILL", "OR-13": "event (CANCELED|EXPIRED|FILL)",
    "OR-14": "event (AMENDED|CANCELED|EXPIRED|FILL)", "OR-15": "not this run's|somebody else", "OR-16": "private stream", "MD-5": "private stream",
    "OR-17": "patience|pause", "OR-18": "refused: price_collar", "AC-3": "market_closed", "AC-5": "closes the position|not this run's|event FILL",
    "AC-6": "deposit of|withdrawal of|moved from outside", "AC-7": "Invalid API-key", "AC-8": "disabled", "MD-11": "refused: (halted|market_closed)",
    "ST-1": "resumed", "ST-2": "resumed|ended: refused", "ST-8": "resumed|ended: refused", "ST-3": "No space left|Read-only",
    "ST-10": "No space left|Read-only", "ST-4": "being written by another process", "ST-5": "ended: refused", "ST-6": "resumed",
    "ST-7": "the run ends|ended: stopped", "NB-2": "lease|stood still", "RK-4": "stopped now", "RK-5": "stopped now", "RK-6": "gate finite",
    "RK-7": "gate order_rate", "NET": "private stream|outcome unknown|not answered"}
FELT = {"AC-3": 2, "MD-11": 2, "AC-7": 3, "AC-8": 3}  # switching it on, or off again, counts as well: so many, and a request has met it
# ST-3 and ST-10 at once are one hold, told with the reason that came first
WIRE = ("OR-", "MD-", "AC-")  # a process that is killed cannot say what it suffered just before
silent = {
    "AC-9": "a change of steps ends the session: I3 and I5 have it", "OR-20": "an ordinary fee: I1 has it",
    "KEY": "the next request is signed by the new one: nothing fails", "SIG": "refused and tried again, or held as AC-7",
    "OR-5": "rounding is how an order is made: no fault to tell", "OR-8": "an ordinary end", "OR-10": "the same fill by stream and answer is ordinary",
    "OR-11": "an ordinary delay until it is long", "MD-4": "told as silence only beyond the bound", "MD-6": "asked for again by the connection",
    "AC-1": "undone before a comparison may see it: I10 is asserted instead", "AC-2": "as AC-1", "AC-4": "nothing is paid without a position: I1 has it",
    "CK-1": "measured and corrected each minute", "CK-2": "as CK-1", "CK-3": "short ones are no gap", "ST-9": "slow, and that is all",
    "NB-3": "the rival is told", "RK-1": "no fault but a burst", "RK-2": "told as stale only beyond the bound", "LAG": "nobody can see it"}

class Traces:
    "What is said in one session."
    def __init__(self, day): self.day, self.said, self.before, self.killed, self.outside = day, set(), {}, False, {}
    def begin(self):
        self.said, self.killed, self.before = set(), False, dict(self.day.active + self.day.faults.active)
        self.outside = self._outside()
    def _outside(self): return {s: sum(f.side * f.lots for f in fs) for s, fs in self.day.watch.external.items()}
    def say(self, text): self.said.add(text)
    def event(self, kind): self.said.add(f"event {KIND_NAMES[kind].upper()}")
    def gate(self, gate): self.said.add(f"gate {ENGINE_GATES[gate - 1] if gate <= len(ENGINE_GATES) else gate}")
    def check(self):
        "Each fault of this session has left its trace."
        text = "\n".join(self.said)
        now = self.day.active + self.day.faults.active
        since = lambda f: now[f] - self.before.get(f, 0)
        away = since("NET") or since("RK-5")  # what the network has lost is told to nobody
        for f in sorted(now):
            if since(f) < FELT.get(f, 1) or f not in TRACES or ((self.killed or away) and f.startswith(WIRE)): continue
            if f == "ST-7" and self.killed: continue  # in the middle of its end
            if f == "OR-15" and self._outside() == self.outside: continue  # bought and sold again before a comparison could see it
            if not re.search(TRACES[f], text): self.day.broke("I15", f"{f} was active {since(f)} times, and nothing was said about it")
