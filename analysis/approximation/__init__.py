"""What a network can represent, at what cost, and what it cannot: targets, constructions, floors, rates, regions, frequency."""
