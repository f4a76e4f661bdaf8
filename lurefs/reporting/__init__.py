"""The report page: `page` joins the `sections`, which draw with `charts`."""
