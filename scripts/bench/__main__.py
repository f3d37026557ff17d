"""kapo beside its peers. `make bench`, or parts by name: make bench PARTS="spawn http"."""

import sys
import time

import common
import life
import output
import watching
import web

PARTS = {
    "spawn": life.spawn,
    "stop": life.stop,
    "notice": life.notice,
    "memory": life.memory,
    "size": life.size,
    "orphans": life.orphans,
    "idle": life.idle,
    "http": web.http,
    "metrics": web.metrics,
    "waiters": web.waiters,
    "raw": output.raw,
    "lines": output.lines,
    "watch": watching.watch,
    "kill": watching.kill,
}


def main(names):
    if names == ["--inside-watch"]:
        watching.inside_watch()
        return 0
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"bench: no part is called {unknown[0]}; there are: {' '.join(PARTS)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    failed = []
    for name in names or PARTS:
        # If one part fails, the others still print their results.
        try:
            PARTS[name]()
        except Exception as error:  # noqa: BLE001
            print(f"   FAILED: {error}")
            failed.append(name)
    common.title("to be reached")
    for name, got, reach, good in common.RESULTS:
        print(f"   {'reached    ' if good else 'NOT REACHED'} {name:<50} {got:>10}  ({reach})")
    if failed:
        print(f"   failed parts: {' '.join(failed)}")
    print(f"\nbench: {len(common.RESULTS)} comparisons in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
