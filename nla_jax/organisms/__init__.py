"""Models whose hidden fact, motive or belief is known: made, checked, and kept with a card that says so."""
