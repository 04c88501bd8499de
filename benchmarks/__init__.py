"""Measurements of speed and memory: ``python -m benchmarks NAME`` runs the module ``benchmarks.NAME``.

A subcommand's module is imported only when it is asked for. It has

- a docstring whose first line is its help,
- ``add_arguments(parser: argparse.ArgumentParser) -> None``: its options besides the common ones (``--rounds``,
  ``--threads``, ``--device``, ``--json``, see `command`); ``parser.set_defaults(rounds=3)`` changes their defaults,
- ``run(options: argparse.Namespace) -> Report``: measures and returns tables, a verdict in plain words and all figures
  for JSON. Raises ConfigError (a sentence) for bad usage.

Alternatives are timed by `timing.interleaved` in one process, in turn, so that the load of the machine meets all alike;
compare by `Timings.ratio`. ``options.device`` is a ``torch.device``, ``options.threads`` has been set in torch.
"""
