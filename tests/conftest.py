"Long files begin first: with two workers a long one that begins last has the other wait for it."
LONG = ("test_live.py", "test_live_feed.py", "test_schedule_live.py", "test_jobs.py", "test_recorder.py", "test_crash.py", "test_told.py", "test_cli.py")

def pytest_collection_modifyitems(items):
    rank = {name: k for k, name in enumerate(LONG)}
    items.sort(key=lambda x: rank.get(x.path.name, len(LONG)))
