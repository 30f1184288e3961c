"""All benchmarks, one after the other: `make bench`."""

import shutil
import sys

from bench import (
    bounce_by_rule,
    dead_domains,
    delivery,
    dkim_signing,
    dsn,
    growth,
    plots,
    queue,
    receive,
    request_attacks,
    rules,
    send_bounce,
    signatures,
    start,
    sweep,
    whole_way,
)
from bench.common import machine

if __name__ == "__main__":
    tools = ("smtp-source", "smtp-sink", "wrk")
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        sys.exit(f"missing: {', '.join(missing)} (Debian: apt-get install postfix wrk)")
    print(machine())
    for module in (
        start,
        dsn,
        dkim_signing,
        rules,
        signatures,
        receive,
        send_bounce,
        bounce_by_rule,
        delivery,
        dead_domains,
        queue,
        sweep,
        whole_way,
        growth,
        request_attacks,
        plots,
    ):
        print()
        module.main()
