"""Measure speed and memory: ``python -m benchmarks NAME`` calls ``run`` of the module ``benchmarks.NAME``.

`command` holds all options, and imports the module of a subcommand only when that is asked for. The module's
``run(options: argparse.Namespace) -> Report`` measures and returns tables, a verdict in plain words and all figures
for JSON; it raises ConfigError (a sentence) for bad usage. It finds a ``torch.device`` with its index in
``options.device``, and ``options.threads`` set in torch.

Alternatives are timed by `timing.time_in_turn` in one process, so that the load of the machine meets all alike; compare
them by `Timings.ratio`.
"""
