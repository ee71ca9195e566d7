"""``python -m fastsock``."""

from fastsock.cli import main

main()
