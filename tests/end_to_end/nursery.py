"""A process that has imported all that a study needs, and makes children of it that run the command line at once.

It reads one JSON object a line: the `arguments` of a child, and perhaps `kill`: the child kills itself where it touches
a file whose path holds `path` for the `count`-th time. It writes the child's number, what the child writes, and how it
ended. The first child may tell which modules it has come to import (`learn`), which are then imported for all others.
"""

import importlib
import json
import os
import signal
import sys
from contextlib import suppress


def say(**what):
    # A child that was killed may have left half a line.
    os.write(1, f"\n{json.dumps(what)}\n".encode())


def die_at(path, count):
    left = count

    def touched(event, arguments):
        nonlocal left
        if event.startswith(("open", "os.")) and any(path in str(one) for one in arguments):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(touched)


def child(order, heard):
    from heretic_tui.cli import run_command_line

    if "kill" in order:
        die_at(**order["kill"])
    sys.argv = ["heretic-tui", *order["arguments"]]
    code = run_command_line()
    sys.stdout.flush()
    if order.get("learn"):
        os.write(heard, json.dumps(sorted(sys.modules)).encode())
    os._exit(code)


def learnt(heard):
    content = b""
    while more := os.read(heard, 65536):
        content += more
    for name in json.loads(content or b"[]"):
        with suppress(Exception):
            importlib.import_module(name)


def main():
    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        number = os.fork()
        if number == 0:
            child(order, writing)
        os.close(writing)
        say(child=number)
        learnt(reading)
        os.close(reading)
        say(ended=os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))


main()
