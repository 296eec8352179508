"""What a step does to the state of a run, and the loop around it."""
