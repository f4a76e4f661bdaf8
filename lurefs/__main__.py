"""Where the command `lurefs` begins, and `python -m lurefs`.

From its first line on Ctrl-C ends the process as the system does, without a traceback, until `lurefs.interrupts` takes
over, some 20 ms later.
"""

import _signal  # type: ignore[import-not-found]  # `signal` needs other modules: more time for a traceback

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from lurefs.cli import main

if __name__ == "__main__":
    main()
