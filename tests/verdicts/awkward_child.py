"""The process that authenticates mail, whose checks of SPF do what the sender's local part says.

`dkim-hang` is a deed of the check of DKIM.
"""

import os
import re
import signal
import time

from sendback.verdicts import child, dkim, spf

ANSWERS = os.dup(1)


def hang():
    """Holds the interpreter: no other thread runs."""
    re.match(r"(a+)+$", "a" * 64 + "!")


def recurse():
    return recurse()


def use_memory():
    return bytes(2**31)


DEEDS = {
    "hang": hang,
    "loop": lambda: [None for _ in iter(int, 1)],
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "memory": use_memory,
    "recursion": recurse,
    "print": lambda: print("printed by a library"),
    "wait": lambda: time.sleep(1),
    "babble": lambda: os.write(ANSWERS, b"nonsense\n"),
    "flood": lambda: os.write(ANSWERS, b"x" * 1_000_000),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def awkward(name, check):
    def wrapped(mail, budget, note):
        prefix, _, deed = f"-{mail.reverse_path.address.local}".rpartition("-")
        if prefix.strip("-") == name:
            DEEDS.get(deed, lambda: None)()
        return check(mail, budget, note)

    return wrapped


if __name__ == "__main__":
    spf.check_spf = awkward("", spf.check_spf)
    dkim.check_dkim = awkward("dkim", dkim.check_dkim)
    child.main()
