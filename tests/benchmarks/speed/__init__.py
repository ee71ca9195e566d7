"""FastSock and the usual server, measured in one run: ``python -m tests.benchmarks.speed``.

`baseline` starts `tests.benchmarks.redis_baseline` with its Redis, `rounds` plays the scenarios of `fastsock.bench`
against both in turns, `compare` says what their medians are to each other, `growth` what a message costs ours as
rooms and hosts become more, ``__main__`` is the program.
"""
