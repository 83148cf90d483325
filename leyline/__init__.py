"""Leyline: edit what a language model remembers, cheaply."""
