"""How the bundled tiny agents are made: data, training, packing, evaluation. Not part of the installed package."""
