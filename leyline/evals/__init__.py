"""Evals: suites under several arms as trials; statistics, replays, fidelity measurements and reports of them."""
