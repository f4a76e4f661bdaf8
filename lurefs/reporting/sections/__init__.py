"""Sections of the report page, one per file, with their tables and sentences."""
