"""Count the faults that the tests of a session tried, for the table at the end of pytest's output."""

from dataclasses import dataclass, field

ONE, BOTH, ONE_OF_TWO = "one process", "both of two", "one of two"


@dataclass
class Tally:
    """Count faults by name and by the processes that they met, with their cost."""

    times: dict[str, dict[str, int]] = field(default_factory=dict)
    """Name -> who -> how often."""
    again: dict[str, int] = field(default_factory=dict)
    """Name -> images that were made again, at most."""
    runs: int = 0
    """Runs that have met a fault."""
    lost: int = 0
    """The runs among them that did not end as they should."""
    seconds_to_end: float = 0.0
    """From the death of one process to the end of the other, at most."""

    def count(self, name: str, who: str = ONE) -> None:
        """Count one more fault."""
        met = self.times.setdefault(name, {})
        met[who] = met.get(who, 0) + 1

    def made_again(self, name: str, images: int) -> None:
        """Record how many images a run made again after a fault of this name."""
        self.again[name] = max(self.again.get(name, 0), images)

    @property
    def faults(self) -> int:
        """Return the number of all faults."""
        return sum(sum(met.values()) for met in self.times.values())

    def sentence(self) -> str:
        """Return the sums as a sentence."""
        again = max(self.again.values(), default=0)
        return (
            f"{self.faults} faults in {self.runs} runs: {self.lost} lost, at most {again} images made again, the other "
            f"process gone after {self.seconds_to_end:.1f} s at most"
        )

    def table(self) -> str:
        """Return a Markdown table with a line per fault."""
        lines: list[tuple[str, ...]] = [("fault", ONE, BOTH, ONE_OF_TWO, "images made again at most")]
        for name, met in self.times.items():
            again = str(self.again[name]) if name in self.again else "-"
            lines.append((name, *(str(met.get(who, "-")) for who in (ONE, BOTH, ONE_OF_TWO)), again))
        lines.insert(1, ("---",) * len(lines[0]))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
