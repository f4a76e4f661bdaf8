"""The report page: `page` puts it together from what is in `sections`, which draw with `charts`."""
