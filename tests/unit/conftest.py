"""Fixtures that several modules of unit tests use."""

from __future__ import annotations

from tests.unit.ws_world import carrier

__all__ = ["carrier"]
