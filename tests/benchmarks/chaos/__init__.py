"""``python -m tests.benchmarks.chaos``: break everything for some minutes under load, then count what was lost.

cluster   what runs: several Ray nodes, PostgreSQL, FastSock; and how each of them is killed
plan      what is broken when, from a seed
people    who talks meanwhile, and what each device was shown
verdict   whether anything was lost, doubled or out of order, and how long nobody was served (pure)
report    the table, the picture, the JSON
"""
