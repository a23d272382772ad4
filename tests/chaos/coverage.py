"Every fault of sections 2 to 7 and 10 of the catalogue: what it is, and where another test covers it when a simulated day cannot."
FAULTS = {
    "MD-1": "a depth update is missing", "MD-2": "a message comes twice", "MD-3": "a message is overtaken", "MD-4": "the socket is open and nothing comes",
    "MD-5": "the venue closes the connection", "MD-6": "connections are refused", "MD-7": "the snapshot is late or fails", "MD-8": "an impossible value",
    "MD-9": "a bar is revised", "MD-10": "the seam between history and live", "MD-11": "trading of a symbol is halted", "MD-12": "two sources disagree",
    "CK-1": "clock off by 1.5 s", "CK-2": "clock off by 10 s", "CK-3": "the machine stands still", "CK-4": "daylight saving",
    "OR-1": "request lost before the venue", "OR-2": "answer lost after acceptance", "OR-3": "5xx, outcome unknown", "OR-4": "explicit rejection", "OR-5": "rounding",
    "OR-6": "not enough money", "OR-7": "post-only or reduce-only refused", "OR-8": "partly filled, then cancelled", "OR-9": "filled while its cancel travels",
    "OR-10": "a fill told several times", "OR-11": "fills out of order", "OR-12": "a fill never told", "OR-13": "ended by the venue", "OR-14": "changed by the venue",
    "OR-15": "somebody trades by hand", "OR-16": "the private stream ends", "OR-17": "rate limit, ban", "OR-18": "protection refused", "OR-19": "half of a batch",
    "OR-20": "fee in a third asset, rebate",
    "AC-1": "leverage changed outside", "AC-2": "hedge or margin mode switched", "AC-3": "delisting", "AC-4": "funding", "AC-5": "liquidation", "AC-6": "deposit, withdrawal",
    "AC-7": "key revoked", "AC-8": "trading disabled", "AC-9": "filters changed",
    "ST-1": "kill at a write, a send, an answer", "ST-2": "power loss", "ST-3": "disk full", "ST-4": "store locked", "ST-5": "damaged state", "ST-6": "older state",
    "ST-7": "orderly stop in the middle", "ST-8": "killed at any moment", "ST-9": "slow disk", "ST-10": "read-only disk",
    "NB-1": "kernel dies", "NB-2": "an orphan goes on", "NB-3": "the job twice", "NB-4": "a run outlasts its slot", "NB-5": "a cell raises", "NB-6": "wrong parameter",
    "NB-7": "bad value in a reload", "NB-8": "package and notebook differ", "NB-9": "promotion twice", "NB-10": "allocations exceed equity",
    "NB-11": "demotion with orders in flight", "NB-12": "many missed schedules",
    "RK-1": "all signal at once", "RK-2": "one instrument's feed stands still", "RK-3": "correlated fall", "RK-4": "stop button in a burst",
    "RK-5": "stop button without network", "RK-6": "a signal that is no number", "RK-7": "runaway loop", "NET": "no network",
}
elsewhere = {}
