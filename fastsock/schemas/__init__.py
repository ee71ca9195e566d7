"""The shapes that cross a wire: events, bodies, names, the log."""
