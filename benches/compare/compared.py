"""Results beside each other: by Envoy's, by one worker's, by the first build's."""

import dataclasses


@dataclasses.dataclass
class Block:
    """All results of a scenario with one number of workers, and of the smallest number that was measured."""

    results: list
    fewest: list

    @property
    def scenario(self):
        """Of all of them."""
        return self.results[0].scenario

    @property
    def workers(self):
        """Threads of each proxy."""
        return self.results[0].workers

    def value(self, result, figure):
        """The median; of a figure where only what was added counts, the difference to no proxy's."""
        if not figure.added:
            return result.median(figure)
        of_none = _named(self.results, "no proxy", figure)
        return result.median(figure) - of_none.median(figure) if of_none else None

    def better(self):
        """By name a result of each contender: of a peer's arrangements the one with the smallest main figure."""
        main, chosen = self.scenario.main, {}
        for result in self.results:
            name = result.contender.split(",")[0]
            if result.has(main) and (name not in chosen or result.median(main) < chosen[name].median(main)):
                chosen[name] = result
        return chosen

    def envoy(self):
        """Envoy's result, or None."""
        return self.better().get("envoy")

    def by_envoy(self, result, figure):
        """How many times Envoy's value, or None."""
        return self._ratio(result, self.envoy(), figure)

    def by_fewest_workers(self, result, figure):
        """How many times its own value with the smallest number of workers, or None in that block itself."""
        if self.fewest is self.results:
            return None
        return self._ratio(result, _named(self.fewest, result.contender, figure), figure)

    def by_first_build(self, result, figure):
        """How many times the value of the first of several builds of Pillion, or None for all others."""
        builds = [one for one in self.results if one.contender.startswith("pillion")]
        return self._ratio(result, builds[0], figure) if result in builds[1:] else None

    def _ratio(self, result, other, figure):
        if other is None or not (result.has(figure) and other.has(figure)) or result.contender == "no proxy":
            return None
        value, by = self.value(result, figure), self.value(other, figure)
        # What was added is below nothing when noise was more than it.
        return value / by if value is not None and by and by > 0 and value >= 0 else None


def blocks(results):
    """A block for each scenario and number of workers, in the order of the results."""
    grouped = {}
    for result in results:
        grouped.setdefault(result.scenario.name, {}).setdefault(result.workers, []).append(result)
    return [Block(block, by_workers[min(by_workers)])
            for by_workers in grouped.values() for block in by_workers.values()]


def _named(results, contender, figure):
    return next((one for one in results if one.contender == contender and one.has(figure)), None)
