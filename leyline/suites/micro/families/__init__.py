"""The program families that tasks are drawn from."""
