"""What everything rests on: configuration, security, errors, limits."""
