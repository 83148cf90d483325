"""Reading a history: who called what, on which files, and how much of it is shown."""
