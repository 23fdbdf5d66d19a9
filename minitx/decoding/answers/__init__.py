"""Many samples, one answer: ranking, votes, consensus, and the enumeration of everything."""
