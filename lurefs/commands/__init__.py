"""The commands of `lurefs`, one file each, with `add_parser(commands)` and `run(arguments) -> int`."""
