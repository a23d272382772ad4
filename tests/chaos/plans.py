def schedule(day, bad, heal): pass
