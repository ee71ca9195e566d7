"""The database: engine, repositories, migrations."""
