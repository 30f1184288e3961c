"""All benchmarks, one after the other: `make bench`."""

from bench import dsn, receive, send_bounce, start, whole_way
from bench.common import machine

if __name__ == "__main__":
    print(machine())
    for module in (start, dsn, receive, send_bounce, whole_way):
        print()
        module.main()
