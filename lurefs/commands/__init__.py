"""What a person types: a file for each command of `lurefs`, with `add_parser(commands)` and `run(arguments) -> int`."""
