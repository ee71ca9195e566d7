"""SQLAlchemy tables; imported by `fastsock.db` only."""
