"""The widest towers of a flame graph as text: who works himself, and who has the work done."""

import collections

from flame.kinds import kind_of

_LISTED = 20
# Two towers whose widths differ by less are one, drawn by its lowest storey.
_SAME = 0.92


def text(title, stacks, hertz):
    """A head, shares by process and by kind of work, the widest by own and by inclusive time."""
    total = sum(stacks.values()) or 1
    own, kinds, processes = collections.Counter(), collections.Counter(), collections.Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        kinds[kind_of(stack[-1])] += count
        processes[stack[0]] += count
    return "\n".join([
        f"{title}: {sum(stacks.values()):,} samples of CPU time, {hertz} a second of it", "",
        "by process", *_lines(processes.most_common(), total), "",
        "by kind of work", *_lines(kinds.most_common(), total), "",
        "own time, the function itself", *_lines(own.most_common(_LISTED), total), "",
        "inclusive time, with everything that it calls (of towers equally wide, the lowest storey)",
        *_lines(_inclusive(stacks), total), ""])


def _inclusive(stacks):
    """The widest functions with what they call, but none that is all of another's tower."""
    seen_in = collections.defaultdict(set)
    for stack in stacks:
        for frame in stack[2:]:
            seen_in[frame].add(stack)
    widths = {frame: sum(stacks[stack] for stack in within) for frame, within in seen_in.items()}
    depth = {frame: min(stack.index(frame) for stack in within) for frame, within in seen_in.items()}
    chosen = []
    for frame in sorted(widths, key=lambda one: (-widths[one], depth[one])):
        if not any(widths[frame] > _SAME * widths[other] and _share(stacks, seen_in[frame], seen_in[other]) > _SAME
                   for other in chosen):
            chosen.append(frame)
        if len(chosen) == _LISTED:
            break
    return [(frame, widths[frame]) for frame in chosen]


def _share(stacks, within, other):
    """How much of the one is in the other."""
    return sum(stacks[stack] for stack in within & other) / sum(stacks[stack] for stack in within)


def _lines(counts, total):
    return [f"{count / total:7.1%}  {name}" for name, count in counts]
