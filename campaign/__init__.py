"""Everything is broken, at random but from a seed, and a checker looks for what was lost by it."""
