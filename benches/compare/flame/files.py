"""One contender's flame graph: recorded, drawn, counted, written."""

from flame import picture, record, stacks, towers
from lab.process import Failure


def write(folder, name, title, it, load):
    """Runs `load` while the contender's processes are sampled; writes NAME.svg, .txt (its towers) and .folded."""
    scratch = it.folder("flame")
    scratch.mkdir()
    data = scratch / "perf.data"
    names = {pid: process.name.split(": ", 1)[-1] for process in it.counted for pid in process.all_pids()}
    with record.recording(data, it.counted):
        load()
    seen = stacks.folded(record.script(data), names)
    # A stack is 64 KiB of it.
    data.unlink()
    if not seen:
        raise Failure(f"{it.name}: perf has no sample of {', '.join(names.values())}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.svg").write_text(picture.svg(title, seen))
    (folder / f"{name}.txt").write_text(towers.text(title, seen, record.HERTZ))
    (folder / f"{name}.folded").write_text(stacks.as_text(seen))
