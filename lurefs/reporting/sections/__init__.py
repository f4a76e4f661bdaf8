"""The sections of the report page: one file for each, with its tables and sentences."""
