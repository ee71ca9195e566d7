"""Programs that measure, and break, a running FastSock; each is ``python -m tests.benchmarks.<name>``."""
