"""How a call is timed: timers take blocks of samples, a stopping rule says when there are enough."""
