"""The parts of the report page: runs side by side, words, tables, charts, images. `lurefs.report` composes them."""
