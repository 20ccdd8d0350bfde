"""What a terminal shows while a pipeline trains: a panel that is redrawn, or a line for each event."""
