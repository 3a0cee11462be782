"""Many runs from one file, and what is drawn and reckoned from their directories."""
