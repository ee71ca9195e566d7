"""SQLAlchemy tables; imported by `fastsock.db` only."""

from fastsock.models.tables import id_blocks, log, markers, members, metadata, placement, rooms, users

__all__ = ["id_blocks", "log", "markers", "members", "metadata", "placement", "rooms", "users"]
