"""How far a part of the bench is: a line on standard error, with the processor seconds until then.

`make bench` shows these lines alone, of all that libraries print.
"""

import sys
import time
from typing import Final

MARK: Final = "· "


def say(what: str) -> None:
    """Print what is done or begun."""
    print(f"{MARK}{time.process_time():.0f} CPU s: {what}", file=sys.stderr, flush=True)
