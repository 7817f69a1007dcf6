"""Starting nginx, which is both the back end and a contender."""

import os
import signal

from lab.process import Process
from lab.tools import find

_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def start_nginx(name, folder, workers, http="", rest="", modules=""):
    """nginx with its files in a new folder; `http` goes into the http block, `rest` beside it."""
    folder.mkdir()
    temporary = "".join(f"  {kind}_temp_path {folder}/{kind};\n" for kind in _FOLDERS)
    block = f"http {{\n  access_log off;\n  default_type text/plain;\n{temporary}{http}}}\n" if http else ""
    config = folder / "nginx.conf"
    # Workers of root's nginx would else become nobody, who may not read a temporary folder.
    user = "user root;\n" if os.geteuid() == 0 else ""
    config.write_text(f"{modules}daemon off;\n{user}worker_processes {workers};\npid {folder}/pid;\n"
                      f"error_log stderr warn;\nworker_rlimit_nofile 16384;\n"
                      f"events {{ worker_connections 16000; }}\n{block}{rest}")
    # When its master is killed, nginx's workers stay; a SIGTERM ends them.
    return Process(name, [find("nginx"), "-e", "stderr", "-p", folder, "-c", config], last_signal=signal.SIGTERM)
