"""From perf's text to folded stacks: how often each stack was seen, the outermost frame first."""

import collections
import re

KERNEL = "_[k]"
"""What the name of a kernel's function ends with."""
_HEAD = re.compile(r"^(\S.*?)\s+(\d+)/(\d+)\s*$")
_FRAME = re.compile(r"^\s+([0-9a-f]+) (.*)$")
_CUT_OFF = "ffffffffffffffff"


def folded(text, names):
    """Counts of stacks, which are tuples of names; `names` says by process id what a process is called."""
    whole, cut = collections.Counter(), collections.Counter()
    for block in text.split("\n\n"):
        lines = block.strip("\n").splitlines()
        head = _HEAD.match(lines[0]) if lines else None
        if not head:
            continue
        stack, is_cut = _stack(lines[1:])
        thread = re.sub(r"[-_]?\d+$", "", head[1])
        process = names.get(int(head[2]), f"process {head[2]}")
        (cut if is_cut else whole)[(process, f"thread {thread}", *stack)] += 1
    return complete(whole, cut)


def _stack(lines):
    """The frames of one sample, the outermost first, and whether the outermost are missing."""
    frames, is_cut = [], False
    for line in lines:
        frame = _FRAME.match(line)
        if not frame:
            continue
        address, name = frame.groups()
        if address == _CUT_OFF:
            is_cut = True
        else:
            frames.append(_name(address, name))
    return frames[::-1], is_cut


def _name(address, name):
    # A semicolon would end the frame where stacks are written down.
    name = name.replace(";", ":")
    return name + KERNEL if address.startswith("ffffffff") else name


def complete(whole, cut):
    """Both together; a stack whose base did not fit into perf's copy gets the most frequent base above which its
    outermost frame was seen in whole stacks of the same thread."""
    bases = collections.defaultdict(collections.Counter)
    for stack, count in whole.items():
        for depth in range(2, len(stack)):
            bases[stack[:2], stack[depth]][stack[2:depth]] += count
    all_of_them = collections.Counter(whole)
    for stack, count in cut.items():
        own, rest = stack[:2], stack[2:]
        base = bases[own, rest[0]].most_common(1) if rest else []
        all_of_them[(*own, *(base[0][0] if base else ()), *rest)] += count
    return all_of_them


def as_text(stacks):
    """The stacks as other programs for flame graphs take them: frames with semicolons, a space, the count."""
    return "".join(f"{';'.join(stack)} {count}\n" for stack, count in sorted(stacks.items()))
