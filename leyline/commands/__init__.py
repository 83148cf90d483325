"""Commands: one file a subcommand. They talk to people and decide nothing."""
