"""The verdict: from errors, references and consequences to one word, its reason and what would decide it."""
