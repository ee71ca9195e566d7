"""The actors and the machinery that carries them: pure, but for `actors.runtime`."""
