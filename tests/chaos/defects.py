from contextlib import contextmanager

DEFECTS = {}

@contextmanager
def planted(name): yield
