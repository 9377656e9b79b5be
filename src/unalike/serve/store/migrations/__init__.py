"""Migrations of the tables of the store, run by alembic."""
