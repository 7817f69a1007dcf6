"""Runs a command in a terminal of its own and types something once it has said a word; prints what it showed and its status."""

import json
import os
import pty
import sys

task = json.loads(sys.argv[1])
child, terminal = pty.fork()
if child == 0:
    os.execvp(task["argv"][0], task["argv"])

output, typed = "", False
while True:
    try:
        read = os.read(terminal, 65536)
    except OSError:  # EIO: nobody holds the terminal any more.
        read = b""
    if not read:
        break
    output += read.decode(errors="replace")
    if not typed and task["after"] in output:
        os.write(terminal, task["type"].encode())
        typed = True
print(json.dumps({"output": output, "status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}))
