"""Golden values: what every experiment computes, so that a change of the code's form can show that no number moved."""
